package filestore

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
)

func init() {
	if os.Geteuid() == 0 {
		contractOptions.Spoil = makeReadOnly
	}
}

// makeReadOnly makes the folder of a place read-only, by a mount, which root cannot write to either.
func makeReadOnly(_ context.Context, place string) (repair func() error, err error) {
	dir := filepath.Dir(place)
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	repair = func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
	return repair, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")
}
