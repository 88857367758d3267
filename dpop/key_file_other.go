//go:build !unix

package dpop

import "io/fs"

const openFlags = 0

// isOfAnother reports nothing: the folder's access rights are what counts.
func isOfAnother(fs.FileInfo) bool { return false }
