package login

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"time"
)

// openWait is how long a command that opens a page is given to fail. One that still runs then is the browser itself.
const openWait = 3 * time.Second

// openCommand returns the command that opens a page in the user's browser on an operating system, without the page.
func openCommand(goos string) []string {
	switch goos {
	case "darwin", "ios":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	return []string{"xdg-open"}
}

// openByCommand opens a page by the command of this operating system.
func openByCommand(ctx context.Context, address string) error {
	return open(ctx, openCommand(runtime.GOOS), address, openWait)
}

// open runs a command with the URL as its last argument: no shell sees it. It waits for its end for so long. The command is not
// ended with ctx, nor by Ctrl-C on the terminal of this program: a browser that it has started belongs to the person.
func open(ctx context.Context, command []string, address string, wait time.Duration) error {
	if _, err := checkOpenable("page", address); err != nil {
		return err
	}
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], address)...)
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return errors.New(command[0] + " cannot be run")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-ended:
		if err != nil {
			return errors.New(command[0] + " has failed")
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
