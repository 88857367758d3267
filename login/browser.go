package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"time"

	"golang.org/x/oauth2"
)

// Browser has a person log in by the browser of this machine (RFC 8252): it listens on a loopback address, opens the authorization
// server's page, and waits for the answer to come by a redirect. The answer counts if it has this login's state; whatever else comes
// to that address gets an error, mostly 404, and ends nothing. The person ends up at a page that says how it went, without the code in
// its address.
//
// The zero Browser is ready. It is safe for concurrent use. It must not be changed after its first use.
type Browser struct {
	// Open opens a page in the person's browser. It is called once for each login, in a goroutine of its own, with a URL that is https
	// or http to this machine, and a context that ends with the login. A login that has had its answer waits up to two seconds for it to return. If it
	// fails before there is an answer, so does the login. If it is nil, xdg-open, open (macOS) or rundll32 (Windows) opens
	// the page, without a shell; and if that fails, the person is asked to. In continuous integration (the variable CI is set), where
	// nobody is, a login without Open fails at once. A test plays the person here.
	Open func(ctx context.Context, url string) error

	// RedirectURIs are those that the client is registered with, in order of preference: the first counts at whose address
	// nobody else listens. Each is http, to 127.0.0.1, [::1] or localhost. Without a port, or with 0, it is any that is free, as servers
	// must allow (RFC 8252 §7.3). If there are none, they are http://127.0.0.1/callback and, for machines without
	// IPv4, http://[::1]/callback. Use localhost only where a server wants that (§8.3).
	RedirectURIs []string

	// Page shows the person how it went: err is nil if they are logged in. The header says already that the page is HTML, not to be
	// kept, and can load nothing, run no scripts and have no styles of its own. If Page is nil, there is a short page of our own. It shows nothing of err: that
	// is for the program.
	Page func(w http.ResponseWriter, err error)

	// Out is where the person reads what to do. If it is nil, that is os.Stderr; io.Discard for nothing.
	Out io.Writer

	hint string // what to do if the page is to be opened by hand; "": it is opened
}

// Login implements [Flow]. When it returns, nobody listens any more.
func (b *Browser) Login(ctx context.Context, a *Authorization) (*oauth2.Token, error) {
	if a == nil {
		return nil, errors.New("login: there is no Authorization")
	}
	if b.Open == nil && here().isCI() {
		return nil, errCI("set Browser.Open to what opens the page for them")
	}
	r, err := listen(b.RedirectURIs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	code, err := a.Code(ctx, r.redirectURI)
	if err != nil {
		return nil, err
	}
	r.serve(code.Matches, b.Page)
	opened := b.show(ctx, r, code.URL())
	defer opened.cancel()

	answer, err := b.await(ctx, r, &opened)
	if err != nil {
		return nil, err
	}
	t, err := code.Redeem(ctx, answer)
	enough, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	r.finish(enough, err)
	opened.wait(enough)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(b.out(), "You are logged in.")
	return t, nil
}

// await returns the answer of the authorization server.
func (b *Browser) await(ctx context.Context, r *receiver, opened *opening) (url.Values, error) {
	var failed error
	for {
		select {
		case answer := <-r.answered:
			return answer, nil
		default: // which comes before all else
		}
		if failed != nil && b.Open != nil {
			if ctx.Err() != nil { // which is why, most likely
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("login: the page could not be opened (Browser.Open): %w", failed)
		}
		select {
		case answer := <-r.answered:
			return answer, nil
		case failed = <-opened.failed:
			if b.Open == nil {
				fmt.Fprintf(b.out(), "No browser could be opened (%v). Please open that address yourself, on this machine.\n", failed)
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (b *Browser) out() io.Writer { return outOr(b.Out) }

func outOr(out io.Writer) io.Writer {
	if out == nil {
		return os.Stderr
	}
	return out
}

// opening is the opening of a page under way.
type opening struct {
	failed chan error    // gets why it has failed, if it does
	ended  chan struct{} // is closed at its end
	cancel context.CancelFunc
}

func (o *opening) wait(ctx context.Context) {
	select {
	case <-o.ended:
	case <-ctx.Done():
	}
}

// show tells the person what to do, and opens the page.
func (b *Browser) show(ctx context.Context, r *receiver, address string) opening {
	o := opening{failed: make(chan error, 1), ended: make(chan struct{})}
	ctx, o.cancel = context.WithCancel(ctx)
	at := hostOf(address)
	if b.hint != "" {
		fmt.Fprintf(b.out(), "To log in at %s, open this address in a browser:\n\n    %s\n\n%s", at, address, r.explain(b.hint))
		close(o.ended)
		return o
	}
	fmt.Fprintf(b.out(), "Your browser is opened to log in at %s. If it is not, open this address:\n\n    %s\n\n"+
		"Waiting for you to log in there ...\n", at, address)
	open := b.Open
	if open == nil {
		open = openByCommand
	}
	go func() {
		err := errors.New("it did not return")
		defer close(o.ended)
		defer func() {
			if value := recover(); value != nil {
				err = panicked(value)
			}
			if err != nil {
				o.failed <- err
			}
		}()
		err = open(ctx, address)
	}()
	return o
}

// panicked is the error for a panic in a callback. Its text leaves out values that could be secrets.
func panicked(value any) error {
	if err, ok := value.(runtime.Error); ok {
		return fmt.Errorf("it panicked: %w", err)
	}
	return fmt.Errorf("it panicked with a value of type %T", value)
}

// hostOf returns the host of a URL that may be opened.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the authorization server"
	}
	return u.Host
}

// pageWait is how long a login that has ended waits for the browser to fetch the last page, and for Open to return.
const pageWait = 2 * time.Second
