package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	helperTime  = 20 * time.Second
	maxHelper   = 64 << 10 // bytes of an answer
	helperGrace = time.Second
)

// notFound is what helpers print where they know no credentials.
const notFound = "credentials not found"

func helperProgram(name string) string { return "docker-credential-" + name }

// askHelper asks a credential helper for the credentials of a registry; none if it knows none.
func askHelper(ctx context.Context, name, registry string) (credentials, error) {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return credentials{}, errors.New("registry: the configuration names a credential helper by more than letters, digits, dots and hyphens")
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	program := helperProgram(name)
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(registry)
	out := &bounded{}
	cmd.Stdout = out
	cmd.WaitDelay = helperGrace
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well, and left a child that keeps the pipe, such as an agent
		err = nil
	}
	switch {
	case ctx.Err() != nil:
		return credentials{}, fmt.Errorf("registry: %.100q has not answered in time: %w", program, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return credentials{}, fmt.Errorf("registry: %.100q, which the configuration names, is not in a folder of $PATH", program)
	case err != nil && strings.HasPrefix(strings.TrimSpace(out.String()), notFound):
		return credentials{}, nil
	case err != nil:
		return credentials{}, fmt.Errorf("registry: %.100q has failed: %w", program, err)
	}
	return readHelper(program, out)
}

// readHelper reads what a helper has printed.
func readHelper(program string, out *bounded) (credentials, error) {
	var answer struct{ Username, Secret string }
	if out.more || json.Unmarshal(out.Bytes(), &answer) != nil || answer.Secret == "" {
		return credentials{}, fmt.Errorf("registry: %.100q has printed no credentials", program)
	}
	return credentials{answer.Username, answer.Secret}, nil
}

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	bytes.Buffer
	more bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxHelper - b.Len(); len(p) > room {
		b.more = true
		b.Buffer.Write(p[:room])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
