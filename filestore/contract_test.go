package filestore

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/authretry/authretry/storetest"
)

func open(place string) (authretry.TokenStore, error) { return New(place), nil }

var contractOptions = storetest.Options{
	Put: func(_ context.Context, place string, value []byte) error { return os.WriteFile(place, value, 0o600) },
	Find: func(_ context.Context, place string, value []byte) (bool, error) {
		files, err := filepath.Glob(place + "*")
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && bytes.Equal(data, value) {
				return true, nil
			}
		}
		return false, err
	},
	Remove:   func(_ context.Context, place string) error { return os.Remove(place) },
	TakeLock: func(_ context.Context, place string) error { return os.Remove(place + ".lock") },
}

func TestContract(t *testing.T) {
	t.Parallel()
	o := contractOptions
	o.MaxSize = thorough.Or(0, 64<<10) // most of the time goes into the longest Record
	storetest.Run(t, open, o)
}
