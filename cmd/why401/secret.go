package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// secretFlags are the flags that say where the secrets are, by name.
type secretFlags map[string]*string

func newSecretFlags() secretFlags {
	f := secretFlags{}
	for _, what := range []string{"password", "token", "proxy-password"} {
		f[what+"-env"], f[what+"-file"] = new(string), new(string)
	}
	return f
}

// given reports whether a flag says where the secret is.
func (f secretFlags) given(what string) bool { return *f[what+"-env"] != "" || *f[what+"-file"] != "" }

// readSecrets gets passwords and the token from where the flags say, and a password from the terminal if there is
// only its user name.
func (c *command) readSecrets(ctx context.Context, q *question, f secretFlags) error {
	var err error
	if q.token, err = c.readSecret(q, "token", f); err != nil {
		return err
	}
	q.tidyToken()
	if err := c.readPassword(ctx, q, &q.user, "u", "password", f); err != nil {
		return err
	}
	return c.readPassword(ctx, q, &q.proxyUser, "proxy-user", "proxy-password", f)
}

func (c *command) readPassword(ctx context.Context, q *question, u *user, userFlag, what string, f secretFlags) (err error) {
	switch {
	case !u.given && f.given(what):
		return usagef("-%s needs a user name; add -%s", what, userFlag)
	case !u.given:
		return nil
	case f.given(what):
		u.password, err = c.readSecret(q, what, f)
	default:
		u.password, err = c.askPassword(ctx, u.name, userFlag, what)
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(u.password) != u.password && !strings.ContainsFunc(u.password, unicode.IsControl) {
		q.tokenNotes = append(q.tokenNotes, cause{what + "-space", "", "The " + strings.ReplaceAll(what, "-", " ") + " begins or ends with a space, and was sent like that.",
			"If the space got there by accident, remove it."})
	}
	q.clean.hideUser(u.name, u.password)
	return nil
}

// readSecret gets a secret from the environment variable or the file that the flags name.
func (c *command) readSecret(q *question, what string, f secretFlags) (string, error) {
	variable, file := *f[what+"-env"], *f[what+"-file"]
	switch {
	case variable != "" && file != "":
		return "", usagef("use either -%s-env or -%s-file", what, what)
	case variable != "":
		if secret := c.getenv(variable); what == "token" && isTokenAnswer(strings.TrimSpace(secret)) {
			return "", wholeAnswer("-token-env: the variable")
		} else if secret != "" {
			return secret, nil
		}
		return "", usagef("-%s-env: the environment variable is empty or not set; the flag takes its name, not its value", what)
	case file != "":
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) { // it may be the secret itself, which is not shown
			return "", usagef("-%s-file: there is no such file; the flag takes its name, not what is in it", what)
		}
		if err != nil {
			return "", usagef("-%s-file: %v", what, err)
		}
		if what == "token" && isTokenAnswer(strings.TrimSpace(string(content))) {
			return "", wholeAnswer("-token-file: the file")
		}
		line, rest, broken := strings.Cut(string(content), "\n")
		q.noteLines(what, line, rest, broken)
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", usagef("-%s-file: the file's first line is empty", what)
		}
		return line, nil
	}
	return "", nil
}

// noteLines notes that a file has more in it than the line that was read. In a file, that is not always seen.
func (q *question) noteLines(what, line, rest string, broken bool) {
	name := strings.ReplaceAll(what, "-", " ")
	switch {
	case strings.TrimSpace(rest) != "":
		q.tokenNotes = append(q.tokenNotes, cause{what + "-lines", "", "The file of the " + name + " has more than one line. Only the first was sent.",
			"If the " + name + " goes on in the others, join them. If not, a program that reads the whole file must leave them out."})
		if what == "token" {
			q.tokenRest = rest
			q.clean.hide(strings.TrimSpace(rest), strings.TrimSpace(line)+strings.TrimSpace(rest))
		}
	case broken:
		q.tokenNotes = append(q.tokenNotes, cause{what + "-line-break", "", "The file of the " + name + " ends with a line break. It was sent without; a program that reads the whole file, and sends that, is refused.",
			"Trim what a program reads, or write the file with printf %s. With echo, it is echo -n."})
	}
}

// wholeAnswer is for JSON in place of a token. It is not sent: there may be a refresh token or a key in it.
func wholeAnswer(where string) error {
	return usagef("%s has a whole JSON document in it, and a token is a value of that alone, usually of access_token: a program that sends all of it is refused; to get the token out: jq -r .access_token", where)
}

// tidyToken removes what gets into tokens by copying them, and notes that it was there: a program that sends it
// as it is gets a 401 for it, also where this one has passed.
func (q *question) tidyToken() {
	if q.token == "" {
		return
	}
	q.clean.hide(q.token)
	tidy := strings.TrimSpace(q.token)
	note := func(name, text, fix string) {
		if !slices.ContainsFunc(q.tokenNotes, func(c cause) bool { return c.Name == name }) {
			q.tokenNotes = append(q.tokenNotes, cause{name, "", text, fix})
		}
	}
	words := 0
	for before := ""; before != tidy; {
		before = tidy
		if whole, ok := strings.CutPrefix(tidy, "\ufeff"); ok {
			tidy = strings.TrimSpace(whole)
			note("token-bom", "The token begins with a byte order mark. Some editors put it into files. It was sent without; a program that sends it is refused.",
				"Save the file as UTF-8 without BOM, if your program reads it.")
		}
		if isWithin(tidy, `"`, `"`) || isWithin(tidy, "'", "'") {
			tidy = strings.TrimSpace(tidy[1 : len(tidy)-1])
			note("token-quotes", "The token is in quotes. They are not part of it, so it was sent without them; a program that sends them is refused.",
				"Remove the quotes there, if your program reads the same.")
		}
		if word, rest, ok := strings.Cut(tidy, " "); ok && strings.EqualFold(strings.TrimSuffix(word, ":"), "Bearer") {
			tidy = strings.TrimSpace(rest)
			words++
		}
	}
	switch {
	case words > 1:
		note("token-prefix", `The token begins with the word "Bearer", more than once. That is the scheme and not part of the token, so it was sent once only; a program that sends it more often is refused.`,
			`Remove the words there, and have the program put in one.`)
	case words == 1:
		note("token-prefix", `The token begins with the word "Bearer". That is the scheme and not part of the token, so it was sent once only.`,
			`Remove it there, if your program puts the word before it, too. The server gets it twice then, and refuses it.`)
	case tidy != q.token && len(q.tokenNotes) == 0:
		note("token-space", "There is white space before or after the token. It was sent without.",
			"Trim it there, if your program reads the same.")
	}
	q.token = tidy
	q.clean.hide(tidy)
	if parts := strings.Split(tidy, "."); len(parts) == 3 && len(parts[2]) >= 16 {
		q.clean.hide(parts[2]) // the signature: without it the rest is of no use
	}
}

// askPassword asks for the password at the terminal, without echo.
func (c *command) askPassword(ctx context.Context, username, userFlag, what string) (string, error) {
	hint := "use -" + what + "-env or -" + what + "-file"
	terminal, ok := c.stdin.(*os.File)
	if !ok || !isTerminal(terminal) {
		return "", usagef("-%s: the password can be asked for at a terminal only, and standard input is none; %s", userFlag, hint)
	}
	restore, err := silence(terminal)
	if err != nil {
		return "", usagef("-%s: the terminal's echo cannot be turned off here, so the password is not asked for; %s", userFlag, hint)
	}
	defer restore()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)

	fmt.Fprintf(c.stderr, "%s of %s (not shown): ", strings.ToUpper(what[:1])+strings.ReplaceAll(what[1:], "-", " "), quoted(username))
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

// quoted returns a name for a sentence.
func quoted(name string) string {
	return `"` + printable(name, 100) + `"`
}
