package storetest_test

import (
	"fmt"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/storetest"
)

// A test would call storetest.Run, and TestMain storetest.Child.
func ExampleCheck() {
	open := func(place string) (authretry.TokenStore, error) { return filestore.New(place), nil }
	err := storetest.Check(open, storetest.Options{OneProcess: true, MaxSize: 64 << 10})
	fmt.Println(err)
	// Output: <nil>
}
