//go:build unix

package login

import (
	"os/exec"
	"syscall"
)

// detach makes a command a session of its own, which neither Ctrl-C nor the end of our terminal reaches.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
