//go:build !unix && !windows

package login

import "os/exec"

// detach does nothing where there is nothing to be done.
func detach(*exec.Cmd) {}
