package storetest_test

import (
	"fmt"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/storetest"
)

// A test would call storetest.Run, and TestMain storetest.Child. This one is compiled only: filestore's tests run it.
func ExampleCheck() {
	open := func(place string) (authretry.TokenStore, error) { return filestore.New(place), nil }
	err := storetest.Check(open, storetest.Options{OneProcess: true})
	fmt.Println(err) // <nil>
}
