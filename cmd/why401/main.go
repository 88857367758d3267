// Why401 asks a URL as a client would, and says why it answers 401 (Unauthorized), 407 or 403, and what would satisfy it.
//
//	go run github.com/authretry/authretry/cmd/why401@latest [flags] [URL]
//
// The likeliest cause and what to do come first, in a line each. Below are the exchange, each challenge in plain words, how a Go program
// satisfies it, what became of the credentials that it was given, and all causes. Each says how sure it is: certain (the server says so,
// or it was tried), likely or possible. Responses that refuse without a 401, 403 or 407 are told, too: a login page, errors of
// GraphQL, gRPC, JSON-RPC and SOAP in a 200, invalid_token in a 400. Without a URL it explains what is pasted
// on its standard input: a header line such as "WWW-Authenticate: Digest ...", its value alone, or all of a response's
// head as "curl -i" prints it:
//
//	curl -si https://api.example.com/ | why401
//
// # Flags
//
//	-u USER              user name for Basic and Digest; the password is asked for at the terminal, without echo
//	-password-env VAR    read the password from this environment variable
//	-password-file FILE  read the password from the first line of this file
//	-token-env VAR       read a Bearer token from this environment variable
//	-token-file FILE     read a Bearer token from the first line of this file
//	-ahead               send Basic with the first request, without waiting for a challenge
//	-allow-plaintext     send Basic and Bearer over plain http to other hosts than loopback, and to proxies, too
//	-X METHOD            the method (GET, or POST with -data)
//	-H 'NAME: VALUE'     a header to send; may be repeated
//	-data FILE           the body to send; no redirect takes it to another origin
//	-repeat N            ask up to N times more (20 at most), each time on a new connection, until an answer differs: that finds one
//	                     server of several that refuses, and refusals over HTTP/2 only. A wrong password counts each time
//	-login               find out who gives out tokens for the URL (RFC 9728), have somebody log in there by a browser or another
//	                     device, try the token, and revoke it; it goes by the proxies of the environment. The token is for
//	                     Bearer, or bound to a key that is made for it (DPoP, RFC 9449) where the server takes no other
//	-client-id ID        the client to log in as, with the redirect URI http://127.0.0.1/callback
//	-issuer URL          the authorization server to log in at, if the resource names several, or one on a private network
//	-register            let the authorization server register this program as a client (RFC 7591), which stays there; without it,
//	                     none is registered
//	-proxy URL           the proxy (as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say)
//	-proxy-user USER     user name for the proxy, for Basic and Digest; the password is asked for
//	-proxy-password-env VAR, -proxy-password-file FILE
//	                     read the password for the proxy from there
//	-timeout DURATION    how long all of it may take (30s; 5m with -login); a handshake of TLS may take 4s of that
//	-json                print the report as JSON
//	-html FILE           write it as a page for a browser, too: one file that loads nothing
//
// No flag takes a password or a token itself, since every user of the machine and the shell's history can read the command
// line; userinfo in the URL is left out, and an error in that of the proxy. A header given with -H is sent as it is, whatever
// it has.
//
// What is printed of a server's words has no secret in it, neither the credentials nor the value of a header given with
// -H, of a cookie or of a query, nor a part of one: in whatever case, in base64, hex, percent-encoding, JSON or HTML, on one
// line or several, and cut short. Two kinds of secret can be printed: one of less than 4 characters as a part of a longer
// word, and one that is itself a word of HTTP authentication, such as "realm".
//
// Of secrets that a server shows of its own, what is named as secrets are is left out: the values of a password, token, key, cookie or
// signature in JSON, a form, XML, a header, a URL or a command line, and whole JWTs. One without such a name can be printed.
//
// JWTs and proofs of possession (RFC 9449) that were sent are decoded for the report, and never printed. No signature is checked.
//
// # Trials
//
// Where one answer does not tell the cause, and the method is GET, HEAD or OPTIONS, the question is asked again, once, and shown as such:
// over HTTP/1.1, if the answer over HTTP/2 cannot be read; over HTTP/2 without TLS, if the connection breaks over HTTP/1.1; with user name
// and password in Latin-1, if both were refused in UTF-8; with the scheme's name in the case that the challenge has, if it was sent in
// another; with another User-Agent, if a 403 says no more, which is shown only if that is not a 403; without cookies, if it has passed with
// some that the server had set; and without credentials, if the server has failed (500), or broken the connection, with them. Where the
// server's certificate is not trusted, a handshake in which nothing is sent shows whether it wants a client certificate as well. With
// -repeat, the same is asked again, as often as it says, and once over HTTP/1.1.
//
// Who gives out the tokens that a challenge asks for is asked, too, if no token was sent: the metadata that it names is read, as -login does,
// and the token service of a container registry is asked for a token. That gets the user name and the password if it is of the origin that
// was asked, and the registry is asked once more, with the token that came of them.
//
// # Exit status
//
//	0  the server did not refuse, or the header lines were explained
//	1  the server refused: 401, 403, 407, or another response that means the same, with certainty or likely
//	2  the command line is wrong
//	3  there is no answer: no connection, nothing to explain, or credentials that must not be sent or could not be had
//
// # JSON
//
// With -json, one object is printed, with these fields. Fields marked ? are left out if they are empty; lists are
// there always. There may be more fields one day.
//
//	outcome       "passed", "refused", "failed" (no answer) or "explained" (from standard input)
//	url?          what was asked, without userinfo and query
//	status?       of the last response
//	summary       a sentence
//	exchanges     requests on the wire, in order: method, url, redirected?, trial? (how it was asked again), credentials?
//	              (which kind), proxyCredentials?, cookies? (how many the server had set), own? (names of headers given
//	              with -H that it carried), status?, phrase?, header? (a list of name and value: those that matter here), error?
//	challenges    of the last response, 12 at most: scheme, known (to this program), defined? (where), meaning,
//	              proxy? (it is a proxy's), token68? (its length), params? (a list of name, value and meaning), needs,
//	              snippet? (Go, for authretry: statements that declare client)
//	moreChallenges?
//	              how many challenges there are besides
//	damage        what is wrong with the header's grammar, a list of sentences
//	reason?       authretry's Reason in words, such as "credentials refused"
//	explanation?  what authretry.Explain says
//	error?        why there is no answer
//	body?         the beginning of the last response's body, as far as it comes within 3 seconds
//	login?        of -login: resource, issuers, scopes, bound?, issuer? (that was asked), browser?, device?, registers?, tried?
//	causes        the causes, the likeliest first: name (stable), sure ("certain", "likely" or "possible"), text, fix?
//	notes         what else was noticed: name (stable), text, fix?
//
// # Terminal
//
// Text is coloured if it goes to a terminal, unless NO_COLOR is set or TERM is dumb or empty. It is as wide as the terminal is, or else
// as COLUMNS says, or 80: at least 40, and 120 at most. What servers say is printed without control characters and cut to a length
// that a person would read.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"
)

// Exit statuses.
const (
	exitPassed = iota
	exitRefused
	exitUsage
	exitFailed
)

func main() {
	c := command{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		getenv: os.Getenv,
		asker:  asker{base: http.DefaultTransport.(*http.Transport).Clone(), now: time.Now, out: os.Stderr},
	}
	os.Exit(c.run(context.Background(), os.Args[1:]))
}

// A command is the program with what it needs of the world.
type command struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	asker          asker
}

// A user is a user name and a password.
type user struct {
	name, password string
	given          bool
	hasColon       bool
}

// set takes the user name as a flag gives it.
func (u *user) set(s string) error {
	u.name, u.given, u.hasColon = s, true, strings.Contains(s, ":")
	return nil
}

// check returns what is wrong with the user name, as a flag gives it, where the password is somewhere else, or is not.
func (u *user) check(hasPassword bool) error {
	switch {
	case u.hasColon && hasPassword:
		return errors.New("a user name has no colon: Basic cannot send one, since it has one between user name and password (RFC 7617 §2); if it has a domain, try DOMAIN\\user, or user@domain")
	case u.hasColon:
		return errors.New("give the user name alone: a password on the command line is there for every user of the machine to read, and stays in the shell's history; leave it out to be asked for it, or say where it is with a variable or a file")
	}
	return nil
}

// A usageError is the command line's fault.
type usageError string

func (e usageError) Error() string { return string(e) }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

func (c *command) run(ctx context.Context, args []string) int {
	q, out, err := c.parse(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		return exitPassed
	}
	if err != nil {
		c.complain(err)
		if _, ok := errors.AsType[usageError](err); ok {
			return exitUsage
		}
		return exitFailed
	}
	var r *report
	if q.url == nil {
		r, err = explainPasted(c.stdin, &q.clean)
		if err != nil {
			c.complain(err)
			return exitFailed
		}
	} else {
		r = c.asker.ask(ctx, q)
	}
	if out.asJSON {
		encoder := json.NewEncoder(c.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		encoder.Encode(r)
	} else {
		newPrinter(c.stdout, c.getenv).report(r)
	}
	if out.html != "" {
		if err := saveHTML(out.html, r); err != nil {
			c.complain(err)
			return exitUsage
		}
	}
	switch r.Outcome {
	case outcomeRefused:
		return exitRefused
	case outcomeFailed:
		return exitFailed
	}
	return exitPassed
}

// complain says why there is no report.
func (c *command) complain(err error) {
	newPrinter(c.stderr, c.getenv).line(0, len("why401: "), "", "why401: "+err.Error())
}

// An output is how the report is put out.
type output struct {
	asJSON bool
	html   string // the file for a page; empty: none
}

// A question is what the command line asks for.
type question struct {
	method         string
	url            *url.URL // without userinfo; nil: explain what is pasted
	userinfo       bool     // the URL had some
	header         http.Header
	data           []byte
	proxy          *url.URL // nil: as the environment says
	timeout        time.Duration
	user           user
	proxyUser      user
	token          string
	tokenRest      string  // what the token's file has after its first line, if that is more than white space
	tokenNotes     []cause // what is odd about the secrets as they were given
	ahead          bool
	repeat         int // how often to ask again
	allowPlaintext bool
	login          loginQuestion

	clean cleaner
}

const usage = `usage: why401 [flags] [URL]

Why401 asks the URL as a client would, and says why it answers 401 and what
would satisfy it. Without a URL it explains the WWW-Authenticate lines given on
standard input.

  -u USER              user name for Basic and Digest; the password is asked for
  -password-env VAR    read the password from an environment variable
  -password-file FILE  read the password from a file
  -token-env VAR       read a Bearer token from an environment variable
  -token-file FILE     read a Bearer token from a file
  -ahead               send Basic without waiting for a challenge
  -allow-plaintext     send Basic and Bearer over plain http to any host
  -X METHOD            the method
  -H 'NAME: VALUE'     a header to send; may be repeated
  -data FILE           the body to send
  -repeat N            ask up to N times more, until an answer differs: that
                       finds one server of several that refuses, and refusals
                       over HTTP/2 only; a wrong password counts each time
  -login               find out who gives out tokens for the URL, log in there,
                       and try the token (Bearer or DPoP)
  -client-id ID        the client to log in as
  -issuer URL          the authorization server to log in at, if there are
                       several
  -register            let the authorization server register this program as a
                       client, if need be
  -proxy URL           the proxy, instead of what the environment says
  -timeout DURATION    how long all of it may take (30s; 5m with -login)
  -proxy-user USER     user name for the proxy; the password is asked for
  -proxy-password-env VAR, -proxy-password-file FILE
                       read the proxy's password from there
  -json                print the report as JSON
  -html FILE           write it as a page for a browser, too

Exit status: 0 not refused, 1 refused, 2 wrong usage, 3 no answer.
`

func (c *command) parse(ctx context.Context, args []string) (q question, out output, err error) {
	q = question{header: http.Header{}}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		q.readProxy(name, c.getenv(name))
	}
	var rawProxy, dataFile string
	secrets := newSecretFlags()
	flags := flag.NewFlagSet("why401", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("u", "", q.user.set)
	flags.Func("proxy-user", "", q.proxyUser.set)
	for name, value := range secrets {
		flags.StringVar(value, name, "", "")
	}
	flags.BoolVar(&q.ahead, "ahead", false, "")
	flags.BoolVar(&q.allowPlaintext, "allow-plaintext", false, "")
	flags.IntVar(&q.repeat, "repeat", 0, "")
	flags.StringVar(&q.method, "X", "", "")
	flags.Func("H", "", q.addHeader)
	flags.StringVar(&dataFile, "data", "", "")
	flags.StringVar(&rawProxy, "proxy", "", "")
	flags.DurationVar(&q.timeout, "timeout", 0, "")
	flags.BoolVar(&q.login.wanted, "login", false, "")
	flags.StringVar(&q.login.clientID, "client-id", "", "")
	flags.StringVar(&q.login.issuer, "issuer", "", "")
	flags.BoolVar(&q.login.register, "register", false, "")
	flags.BoolVar(&out.asJSON, "json", false, "")
	flags.StringVar(&out.html, "html", "", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(c.stdout, usage)
			return q, out, err
		}
		return q, out, usagef("%s; see why401 -h", plainFlagError(err))
	}
	if err := q.user.check(secrets.given("password")); err != nil {
		return q, out, usagef("-u: %v", err)
	}
	if err := q.proxyUser.check(secrets.given("proxy-password")); err != nil {
		return q, out, usagef("-proxy-user: %v", err)
	}
	switch flags.NArg() {
	case 0:
		return q, out, nil
	case 1:
		if flags.Arg(0) == "-" { // as many commands have it
			return q, out, nil
		}
	default:
		return q, out, usagef("one URL is enough, and flags go before it; see why401 -h")
	}
	if err := q.setURL(flags.Arg(0)); err != nil {
		return q, out, err
	}
	if err := q.checkLogin(secrets.given("token")); err != nil {
		return q, out, err
	}
	if rawProxy != "" {
		if !strings.Contains(rawProxy, "://") {
			rawProxy = "http://" + rawProxy // as the environment's are read
		}
		if q.proxy, err = parseURL(rawProxy, "http", "https", "socks5"); err != nil {
			return q, out, usagef("-proxy: %v", err)
		}
		if q.proxy.User != nil {
			return q, out, usagef("-proxy takes no user name and password, which every user of the machine could read; use -proxy-user")
		}
	}
	if dataFile != "" {
		if q.data, err = os.ReadFile(dataFile); err != nil {
			return q, out, usagef("-data: %v", err)
		}
		q.clean.hideData(q.data)
	}
	if q.method == "" {
		q.method = http.MethodGet
		if dataFile != "" {
			q.method = http.MethodPost
		}
	}
	if _, err := http.NewRequest(q.method, "http://localhost/", nil); err != nil {
		return q, out, usagef("-X takes a method, such as GET")
	}
	if err := q.checkRepeat(); err != nil {
		return q, out, err
	}
	return q, out, c.readSecrets(ctx, &q, secrets)
}

// checkLogin checks the flags of -login, and gives a person the time for it.
func (q *question) checkLogin(hasToken bool) error {
	l := q.login
	if l.wanted && hasToken {
		return usagef("-login gets a token: use it, or -token-env or -token-file")
	}
	if !l.wanted && (l.clientID != "" || l.issuer != "" || l.register) {
		return usagef("-client-id, -issuer and -register are for -login")
	}
	if l.issuer != "" {
		if _, err := parseURL(l.issuer, "https", "http"); err != nil {
			return usagef("-issuer: %v", err)
		}
	}
	if q.timeout == 0 {
		q.timeout = 30 * time.Second
		if l.wanted {
			q.timeout = 5 * time.Minute
		}
	}
	return nil
}

// plainFlagError returns what a flag's own func said, without the flag's value, which package flag puts before it and
// which may have a password in it.
func plainFlagError(err error) string {
	s := err.Error()
	if !strings.HasPrefix(s, "invalid value ") {
		return s
	}
	switch {
	case strings.HasSuffix(s, "for flag -timeout: parse error"):
		return "-timeout takes a duration, such as 30s or 2m"
	case strings.HasSuffix(s, "for flag -repeat: parse error"):
		return "-repeat takes a number"
	}
	for _, name := range []string{"-u", "-proxy-user", "-H"} {
		if _, own, ok := strings.Cut(s, "for flag "+name+": "); ok {
			return name + ": " + own
		}
	}
	return s
}

// addHeader takes a header as -H gives it.
func (q *question) addHeader(line string) error {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case !ok || name == "" || strings.ContainsFunc(name, unicode.IsSpace):
		return errors.New("it takes 'Name: value'")
	case strings.ContainsFunc(value, unicode.IsControl):
		return errors.New("the header's value has a control character")
	}
	q.header.Add(name, value)
	if harmless[http.CanonicalHeaderKey(name)] {
		return nil
	}
	q.clean.hideHeader(value)
	return nil
}

// harmless are the headers whose values are no secrets.
var harmless = map[string]bool{"Accept": true, "Accept-Language": true, "Accept-Encoding": true, "Content-Type": true, "User-Agent": true,
	"Host": true, "Origin": true, "Referer": true, "Range": true, "Expect": true, "Cache-Control": true,
	"Access-Control-Request-Method": true, "Access-Control-Request-Headers": true}

// payload returns the body to send, or nil.
func (q *question) payload() io.Reader {
	if q.data == nil {
		return nil
	}
	return bytes.NewReader(q.data)
}
