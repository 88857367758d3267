package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

// secretFlags say where the secrets are.
type secretFlags struct {
	passwordEnv, passwordFile string
	tokenEnv, tokenFile       string
}

// readSecrets gets the password and the token from where the flags say, and the password from the terminal if there is
// only a user name.
func (c *command) readSecrets(ctx context.Context, q *question, f secretFlags) error {
	switch {
	case f.passwordEnv != "" && f.passwordFile != "":
		return usagef("use either -password-env or -password-file")
	case f.tokenEnv != "" && f.tokenFile != "":
		return usagef("use either -token-env or -token-file")
	case (f.passwordEnv != "" || f.passwordFile != "") && !q.hasUser:
		return usagef("a password needs a user name; add -u")
	}
	var err error
	if q.token, err = c.readSecret("-token-env", f.tokenEnv, "-token-file", f.tokenFile); err != nil {
		return err
	}
	q.tidyToken()
	if !q.hasUser {
		return nil
	}
	if f.passwordEnv != "" || f.passwordFile != "" {
		q.password, err = c.readSecret("-password-env", f.passwordEnv, "-password-file", f.passwordFile)
	} else {
		q.password, err = c.askPassword(ctx, q.username)
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(q.password) != q.password {
		q.tokenNotes = append(q.tokenNotes, cause{"password-space", "The password begins or ends with a space, and was sent like that.",
			"If the space got there by accident, remove it."})
	}
	if q.password != "" {
		q.clean.hide(q.password, base64.StdEncoding.EncodeToString([]byte(q.username+":"+q.password)))
	}
	return nil
}

func (c *command) readSecret(envFlag, variable, fileFlag, file string) (string, error) {
	switch {
	case variable != "":
		if secret := c.getenv(variable); secret != "" {
			return secret, nil
		}
		return "", usagef("%s: the environment variable is empty or not set; the flag takes its name, not its value", envFlag)
	case file != "":
		content, err := os.ReadFile(file)
		if err != nil {
			return "", usagef("%s: %v", fileFlag, err)
		}
		line, _, _ := strings.Cut(string(content), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", usagef("%s: the file's first line is empty", fileFlag)
		}
		return line, nil
	}
	return "", nil
}

// tidyToken removes what gets into tokens by copying them, and notes that it was there: a program that sends it
// as it is gets a 401 for it.
func (q *question) tidyToken() {
	if q.token == "" {
		return
	}
	q.clean.hide(q.token)
	tidy := strings.TrimSpace(q.token)
	if unquoted := strings.Trim(tidy, `"'`); unquoted != tidy {
		tidy = unquoted
		q.tokenNotes = append(q.tokenNotes, cause{"token-quotes", "The token is in quotes. They are not part of it, so it was sent without them.",
			"If your program reads the token from the same place, remove the quotes there."})
	}
	if word, rest, ok := strings.Cut(tidy, " "); ok && strings.EqualFold(word, "Bearer") {
		tidy = strings.TrimSpace(rest)
		q.tokenNotes = append(q.tokenNotes, cause{"token-prefix", `The token begins with the word "Bearer". That is the scheme and not part of the token, so it was sent once only.`,
			`If your program puts "Bearer" before what it reads from the same place, the server gets the word twice and refuses it: remove it there.`})
	} else if tidy != q.token && len(q.tokenNotes) == 0 {
		q.tokenNotes = append(q.tokenNotes, cause{"token-space", "There is white space before or after the token. It was sent without.",
			"If your program reads the token from the same place, trim it there."})
	}
	q.token = tidy
	q.clean.hide(tidy)
	if parts := strings.Split(tidy, "."); len(parts) == 3 && len(parts[2]) >= 16 {
		q.clean.hide(parts[2]) // the signature: without it the rest is of no use
	}
}

// askPassword asks for the password at the terminal, without echo.
func (c *command) askPassword(ctx context.Context, username string) (string, error) {
	const hint = "use -password-env or -password-file"
	terminal, ok := c.stdin.(*os.File)
	if !ok || !isTerminal(terminal) {
		return "", usagef("-u: the password can be asked for at a terminal only, and standard input is none; %s", hint)
	}
	restore, err := silence(terminal)
	if err != nil {
		return "", usagef("-u: the terminal's echo cannot be turned off here, so the password is not asked for; %s", hint)
	}
	defer restore()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)

	fmt.Fprintf(c.stderr, "Password of %s (not shown): ", q(username))
	defer fmt.Fprintln(c.stderr)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := readLine(terminal)
		answered <- answer{line, err}
	}()
	select {
	case a := <-answered:
		return a.line, a.err
	case <-interrupted:
	case <-ctx.Done():
	}
	return "", errors.New("interrupted")
}

// silence turns the terminal's echo off, and returns a function that sets everything as it was.
func silence(terminal *os.File) (restore func(), err error) {
	before, err := stty(terminal, "-g")
	if err != nil {
		return nil, err
	}
	if _, err := stty(terminal, "-echo"); err != nil {
		return nil, err
	}
	return func() { stty(terminal, strings.TrimSpace(before)) }, nil
}

func stty(terminal *os.File, args ...string) (string, error) {
	cmd := exec.Command("stty", args...)
	cmd.Stdin = terminal
	out, err := cmd.Output()
	return string(out), err
}

// readLine reads up to the end of a line and not beyond.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, b[:n]...)
		if err == io.EOF && len(line) > 0 {
			return string(line), nil
		}
		if err != nil {
			return "", errors.New("no password was given")
		}
	}
}

// isTerminal reports whether f may be a terminal: /dev/null is a character device, too.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// q returns a name for a sentence.
func q(name string) string {
	var c cleaner
	return `"` + c.text(name, 100) + `"`
}
