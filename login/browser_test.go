package login

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

func TestBrowserLogsSomebodyIn(t *testing.T) { // not parallel: others could take the port
	s, out := newServer(t), &terminal{}
	var seen *visit
	opened := make(chan string, thorough.Or(1, 2)) // with room for one, Open does not return until nobody waits for it
	var during context.Context
	browser := &Browser{Out: out, Open: func(ctx context.Context, address string) (err error) {
		during = ctx
		opened <- address
		seen, err = browse(ctx, address)
		opened <- "done"
		return err
	}}
	token, err := browser.Login(t.Context(), s.authorization())
	require.NoError(t, err)
	require.Equal(t, []string{"token-1", "r"}, []string{token.AccessToken, token.RefreshToken})
	address := <-opened
	require.Equal(t, "done", <-opened)
	require.Error(t, during.Err(), "it has ended with the login")

	query, err := url.Parse(address)
	require.NoError(t, err)
	require.Equal(t, "read", query.Query().Get("scope"))
	redirect, err := url.Parse(query.Query().Get("redirect_uri"))
	require.NoError(t, err)
	require.Equal(t, []string{"http", "127.0.0.1", "/callback"}, []string{redirect.Scheme, redirect.Hostname(), redirect.Path})

	require.Len(t, seen.passed, 2, "to the redirect URI, and from there to a page")
	require.Contains(t, seen.passed[0], "code=")
	require.NotContains(t, seen.passed[1], "?", "the code has left the address bar")
	require.Contains(t, seen.page, "You are logged in")
	require.NotContains(t, strings.ToLower(seen.page), "<script")
	require.True(t, seen.closes, "so that it is known when the page has arrived")
	for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Content-Type": "text/html; charset=utf-8", "X-Frame-Options": "DENY"} {
		require.Equal(t, want, seen.header.Get(name), name)
	}
	require.Contains(t, seen.header.Get("Content-Security-Policy"), "default-src 'none'; ")

	require.Equal(t, "Your browser is opened to log in at "+query.Host+". If it is not, open this address:\n\n    "+address+
		"\n\nWaiting for you to log in there ...\nYou are logged in.\n", out.String())
	requireFree(t, redirect.Host)
}

// requireFree fails unless somebody can listen at an address.
func requireFree(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err, "the port is free again")
	l.Close()
}

// What comes to the port and is not the answer gets a 404, and ends nothing; what comes after the answer changes nothing.
func TestStrangersEndNothing(t *testing.T) {
	type request struct {
		method, host, path string
		query              url.Values
		raw                string
	}
	for name, change := range map[string]func(r *request){
		"another path":    func(r *request) { r.path = "/" },
		"below":           func(r *request) { r.path += "/" },
		"favicon":         func(r *request) { r.path, r.query = "/favicon.ico", nil },
		"no query":        func(r *request) { r.query = nil },
		"wrong state":     func(r *request) { r.query.Set("state", "guessed") },
		"state is longer": func(r *request) { r.query.Set("state", r.query.Get("state")+"x") },
		"no state":        func(r *request) { r.query.Del("state") },
		"two states":      func(r *request) { r.query.Add("state", "x") },
		"an error without state": func(r *request) {
			r.query = url.Values{"error": {"access_denied"}}
		},
		"wrong Host":         func(r *request) { r.host = "attacker.example.com" },
		"Host without port":  func(r *request) { r.host = "127.0.0.1" },
		"Host by name":       func(r *request) { r.host = strings.Replace(r.host, "127.0.0.1", "localhost", 1) },
		"POST":               func(r *request) { r.method = "POST" },
		"HEAD":               func(r *request) { r.method = "HEAD" },
		"OPTIONS":            func(r *request) { r.method = "OPTIONS" },
		"1 MiB":              func(r *request) { r.query.Set("code", strings.Repeat("x", 1<<20)) },
		"32 KiB":             func(r *request) { r.query.Set("code", strings.Repeat("x", 32<<10)) },
		"damaged":            func(r *request) { r.raw = "&x=%zz" },
		"semicolon":          func(r *request) { r.raw = ";x=1" },
		"the page to be not": func(r *request) { r.path += "/AAAAAAAAAAAAAAAAAAAAAAAAAA" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			browser := &Browser{Out: io.Discard, Open: func(ctx context.Context, address string) error {
				u, err := url.Parse(address)
				if err != nil {
					return err
				}
				to, err := url.Parse(u.Query().Get("redirect_uri"))
				if err != nil {
					return err
				}
				r := request{"GET", to.Host, to.Path, url.Values{"state": u.Query()["state"], "code": {"forged"}}, ""}
				change(&r)
				req, err := http.NewRequestWithContext(ctx, r.method, "http://"+to.Host+r.path+"?"+r.query.Encode()+r.raw, nil)
				if err != nil {
					return err
				}
				req.Host = r.host
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					return err
				}
				resp.Body.Close()
				if resp.StatusCode != 404 && resp.StatusCode != 431 {
					return errors.New(resp.Status)
				}
				return agree(ctx, address)
			}}
			token, err := browser.Login(t.Context(), s.authorization())
			require.NoError(t, err)
			require.Equal(t, "token-1", token.AccessToken)
			require.Equal(t, "code-0", s.forms[0].Get("code"))
		})
	}
}

// The first answer counts. A browser may repeat it; another one is a stranger's.
func TestSecondAnswer(t *testing.T) {
	s := newServer(t)
	statuses := make(chan int, 3)
	browser := &Browser{Out: io.Discard, Open: func(ctx context.Context, address string) error {
		jump := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		get := func(address string) (string, error) {
			resp, err := jump.Get(address)
			if err != nil {
				return "", err
			}
			resp.Body.Close()
			statuses <- resp.StatusCode
			return resp.Header.Get("Location"), nil
		}
		callback, err := get(address)
		if err != nil {
			return err
		}
		<-statuses
		s.mu.Lock() // the code is not redeemed yet
		_, err1 := get(callback)
		_, err2 := get(strings.Replace(callback, "code-0", "code-1", 1))
		last, err3 := get(callback)
		s.mu.Unlock()
		at, _ := url.Parse(callback)
		_, err4 := browse(ctx, "http://"+at.Host+last)
		return errors.Join(err1, err2, err3, err4)
	}}
	_, err := browser.Login(t.Context(), s.authorization())
	require.NoError(t, err)
	require.Equal(t, []int{303, 404, 303}, []int{<-statuses, <-statuses, <-statuses})
	require.Len(t, s.forms, 1)
	require.Equal(t, "code-0", s.forms[0].Get("code"))
}

// What the authorization server says in place of a code, or says wrongly: an error that tells what to do, and nothing is sent.
func TestAnswersThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		answer    url.Values
		announced bool
		is        error
		says      string
	}{
		"declined":              {url.Values{"error": {"access_denied"}, "error_description": {"remote text"}}, false, ErrDeclined, "declined"},
		"failed":                {url.Values{"error": {"server_error"}}, false, nil, "try again later"},
		"escapes":               {url.Values{"error": {"\x1b[2Jremote text"}}, false, nil, "error"},
		"no code":               {url.Values{}, false, nil, "no code"},
		"two codes":             {url.Values{"code": {"a", "b"}}, false, nil, "no code, or more than one"},
		"of another server":     {url.Values{"code": {"a"}, "iss": {"https://other.example.com"}}, false, ErrIssuer, "another authorization server"},
		"declined by another":   {url.Values{"error": {"access_denied"}, "iss": {"https://other.example.com"}}, true, ErrIssuer, "another authorization server"},
		"does not say of which": {url.Values{"code": {"a"}}, true, ErrIssuer, "another authorization server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, out := newServer(t), &terminal{}
			s.answer = c.answer
			a := s.authorization()
			a.AnswersWithIssuer = c.announced
			pages := make(chan string, 1)
			browser := &Browser{Out: out, Open: func(ctx context.Context, address string) error {
				v, err := browse(ctx, address)
				if err == nil {
					pages <- v.page
				}
				return err
			}}
			_, err := browser.Login(t.Context(), a)
			require.Error(t, err)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			page := <-pages
			require.Contains(t, page, "You are not logged in")
			require.Contains(t, page, `<main class="no">`)
			require.Zero(t, s.tokenRequests())
			for _, text := range []string{err.Error(), out.String(), page} {
				requirePrintable(t, text)
				require.NotContains(t, text, "remote text")
			}
			require.NotContains(t, out.String(), "You are logged in")
		})
	}
}

// What must not be opened is not, and nothing is shown or sent.
func TestPagesThatAreNotOpened(t *testing.T) {
	s := newServer(t)
	for _, address := range []string{
		"javascript:alert(1)", "JavaScript://a.example.com/%0aalert(1)", "file:///etc/passwd", "data:text/html,x", "ftp://a.example.com/", "vbscript:x",
		"http://auth.example.com/authorize", "http://127.0.0.1.example.com/", "https://", "https:a.example.com", "//a.example.com/", "authorize", "",
		"https://a.example.com/$(touch x)", "https://a.example.com/`id`", "https://a.example.com/;id", "https://a.example.com/|id", "https://a.example.com/'x",
		`https://a.example.com/"x`, `https://a.example.com/\x`, "https://a.example.com/<x", "https://a.example.com/a b", "https://a.example.com/^x",
		"https://a.example.com/\x1b[2J", "https://a.example.com/\n", "https://a.example.com/\u202e", "https://user@a.example.com/", "https://a.example.com/#x",
		"https://2130706433/", "https://127.1/", "https://a.0x7f/", "https://0177.0.0.1/", "https://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1/", "http://app.localhost/", "http://localhost./",
		"-a", "--help", "https://a.example.com/" + strings.Repeat("x", 1<<14),
	} {
		out := &terminal{}
		a := s.authorization()
		a.URL = address
		browser := &Browser{Out: out, Open: func(context.Context, string) error { t.Errorf("%q was opened", address); return nil }}
		_, err := browser.Login(t.Context(), a)
		require.Error(t, err, address)
		requirePrintable(t, err.Error())
		require.Empty(t, out.String())
		require.Error(t, open(t.Context(), []string{"true"}, address, time.Minute), "nor by the command")
	}
	require.Zero(t, s.tokenRequests())
}

// A program's own Open that fails ends the login. If the usual command fails, the person is asked to do it.
func TestPageThatCannotBeOpened(t *testing.T) {
	for name, open := range map[string]func(context.Context, string) error{
		"fails":  func(context.Context, string) error { return errors.New("no window") },
		"panics": func(context.Context, string) error { panic("secret") },
		"exits":  func(context.Context, string) error { runtime.Goexit(); return nil },
	} {
		_, err := (&Browser{Out: io.Discard, Open: open}).Login(t.Context(), newServer(t).authorization())
		require.ErrorContains(t, err, "Browser.Open", name)
		require.NotContains(t, err.Error(), "secret")
	}

	for range 50 { // the answer is there, too
		r, opened := &receiver{answered: make(chan url.Values, 1)}, &opening{failed: make(chan error, 1)}
		r.answered <- url.Values{"code": {"c"}}
		opened.failed <- errors.New("later")
		answer, err := (&Browser{Open: agree}).await(t.Context(), r, opened)
		require.NoError(t, err)
		require.Equal(t, "c", answer.Get("code"))
	}

	t.Setenv("PATH", t.TempDir())
	s, out := newServer(t), &terminal{}
	ended := make(chan error, 1)
	go func() {
		_, err := (&Browser{Out: out}).Login(t.Context(), s.authorization())
		ended <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "No browser could be opened") }, 20*time.Second, time.Millisecond)
	require.NoError(t, agree(t.Context(), shownIn(t, out.String())))
	require.NoError(t, <-ended)
}

// answer is a browser that brings the answer, and returns where it is sent then.
func answer(address string) (last string, err error) {
	client := &http.Client{CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if last = req.URL.String(); req.URL.RawQuery == "" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := client.Get(address)
	if err == nil {
		resp.Body.Close()
	}
	return last, err
}

// shownIn returns the address that a person is asked to open.
func shownIn(t *testing.T, text string) string {
	t.Helper()
	address := regexp.MustCompile(`(?m)^    (http\S+)$`).FindStringSubmatch(text)
	require.NotNil(t, address, text)
	return address[1]
}

// A page of a program's own, which panics, or which nobody fetches.
func TestLastPage(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	pages := make(chan *visit, 1)
	open := func(ctx context.Context, address string) error {
		v, err := browse(ctx, address)
		pages <- v
		return err
	}
	browser := &Browser{Out: io.Discard, Open: open, Page: func(w http.ResponseWriter, err error) {
		w.WriteHeader(201)
		io.WriteString(w, "<p>mine")
	}}
	_, err := browser.Login(t.Context(), s.authorization())
	require.NoError(t, err)
	mine := <-pages
	require.Equal(t, []any{"<p>mine", 201, "text/html; charset=utf-8"}, []any{mine.page, mine.status, mine.header.Get("Content-Type")})

	browser.Open = func(ctx context.Context, address string) error { _, _ = browse(ctx, address); return nil }
	browser.Page = func(http.ResponseWriter, error) { panic("x") }
	_, err = browser.Login(t.Context(), s.authorization())
	require.NoError(t, err)

	if thorough.Or(false, true) {
		return // what follows waits for pageWait
	}
	browser.Open = func(_ context.Context, address string) error { _, err := answer(address); return err }
	start := time.Now()
	_, err = browser.Login(t.Context(), s.authorization())
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), pageWait)
}

func TestRedirectURIs(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	free.Close()
	at := func(l net.Listener) string { return strings.TrimPrefix(l.Addr().String(), "127.0.0.1") }
	for name, c := range map[string]struct {
		uris []string
		want string // a regular expression; "": an error
	}{
		"none":              {nil, `^http://127\.0\.0\.1:\d+/callback$`},
		"any port":          {[]string{"http://127.0.0.1/a/b%20c"}, `^http://127\.0\.0\.1:\d+/a/b%20c$`},
		"no port":           {[]string{"http://127.0.0.1:/x"}, `^http://127\.0\.0\.1:\d+/x$`},
		"port 0":            {[]string{"http://127.0.0.1:0/x"}, `^http://127\.0\.0\.1:[1-9]\d*/x$`},
		"no path":           {[]string{"http://127.0.0.1"}, `^http://127\.0\.0\.1:\d+$`},
		"root":              {[]string{"http://127.0.0.1/"}, `^http://127\.0\.0\.1:\d+/$`},
		"a port":            {[]string{"http://127.0.0.1" + at(free) + "/x"}, "^http://127\\.0\\.0\\.1" + at(free) + "/x$"},
		"localhost":         {[]string{"http://localhost/x"}, `^http://localhost:\d+/x$`},
		"first is taken":    {[]string{"http://127.0.0.1" + at(taken) + "/x", "http://127.0.0.1" + at(free) + "/x"}, at(free) + "/x$"},
		"all are":           {[]string{"http://127.0.0.1" + at(taken) + "/x", "http://localhost" + at(taken) + "/x"}, ""},
		"https":             {[]string{"https://127.0.0.1/"}, ""},
		"another machine":   {[]string{"http://example.com/"}, ""},
		"all addresses":     {[]string{"http://0.0.0.0/"}, ""},
		"no host":           {[]string{"http:///x"}, ""},
		"a query":           {[]string{"http://127.0.0.1/x?y=1"}, ""},
		"a fragment":        {[]string{"http://127.0.0.1/x#y"}, ""},
		"a user":            {[]string{"http://u@127.0.0.1/x"}, ""},
		"second is a error": {[]string{"http://127.0.0.1/", "x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			var to string
			seen := make(chan error, 1)
			browser := &Browser{Out: io.Discard, RedirectURIs: c.uris, Open: func(ctx context.Context, address string) error {
				u, err := url.Parse(address)
				if err != nil {
					return err
				}
				to = u.Query().Get("redirect_uri")
				seen <- agree(ctx, address)
				return nil
			}}
			_, err := browser.Login(t.Context(), s.authorization())
			if c.want == "" {
				require.ErrorContains(t, err, "login: ")
				require.Zero(t, s.asks())
				return
			}
			require.NoError(t, err)
			require.NoError(t, <-seen, "the last page")
			require.Regexp(t, c.want, to)
		})
	}
}

// Browsers leave out the port that goes without saying.
func TestPortThatGoesWithoutSaying(t *testing.T) {
	u, err := url.Parse("http://127.0.0.1:80/x")
	require.NoError(t, err)
	r, err := listenAt(u)
	if err != nil {
		t.Skip("this port is not for us")
	}
	defer r.Close()
	require.Equal(t, []string{"http://127.0.0.1:80/x", "127.0.0.1"}, []string{r.redirectURI, r.host})
}

// For localhost, nobody else gets what comes to its other address.
func TestLocalhostIsBothAddresses(t *testing.T) {
	if !has("::1") {
		t.Skip("this machine has no IPv6")
	}
	u, err := url.Parse("http://localhost/x")
	require.NoError(t, err)
	r, err := listenAt(u)
	require.NoError(t, err)
	defer r.Close()
	require.Len(t, r.listeners, 2)
	taken, err := net.Listen("tcp", "[::1]:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	_, err = listen([]string{"http://localhost:" + port + "/x"})
	require.Error(t, err)
	requireFree(t, "127.0.0.1:"+port)
}

// Where the port is any, one that is taken at the other address of localhost is not the end.
func TestLocalhostOnAnyPort(t *testing.T) {
	if !has("::1") {
		t.Skip("this machine has no IPv6")
	}
	for taken, want := range map[int]int{0: 2, 3: 2, 1000: 0} { // how often it is taken
		var all []net.Listener
		listen := func(network, address string) (net.Listener, error) {
			if strings.HasPrefix(address, "[::1]:") && taken > 0 {
				taken--
				return nil, syscall.EADDRINUSE
			}
			l, err := net.Listen(network, address)
			if err == nil {
				all = append(all, l)
			}
			return l, err
		}
		listeners, err := listenOn([]string{"127.0.0.1", "::1"}, "", listen)
		require.Len(t, listeners, want)
		if want == 0 {
			require.ErrorIs(t, err, syscall.EADDRINUSE)
		}
		for _, l := range listeners {
			require.NoError(t, l.Close())
		}
		for _, l := range all {
			require.ErrorIs(t, l.Close(), net.ErrClosed, "what is not used is not kept")
		}
	}
}

// The end of the context is the error, even if the page could not be opened because of it; both are known at once.
func TestPageThatDoesNotOpenAsTheContextEnds(t *testing.T) {
	cause := errors.New("the person has had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for range 100 {
		opened := opening{failed: make(chan error, 1)}
		opened.failed <- ctx.Err()
		_, err := (&Browser{Open: func(context.Context, string) error { return nil }}).await(ctx, &receiver{}, &opened)
		require.Equal(t, cause, err)
	}
}

// Every step ends with the context, and leaves no port behind.
func TestLoginEndsWithItsContext(t *testing.T) {
	cause := errors.New("the person has had enough")
	for name, stop := range map[string]func(s *testServer, cancel func()) func(context.Context, string) error{
		"while somebody logs in": func(_ *testServer, cancel func()) func(context.Context, string) error {
			return func(context.Context, string) error { cancel(); return nil }
		},
		"while the page does not open": func(_ *testServer, cancel func()) func(context.Context, string) error {
			return func(ctx context.Context, _ string) error { cancel(); <-ctx.Done(); return ctx.Err() }
		},
		"while the code is redeemed": func(s *testServer, cancel func()) func(context.Context, string) error {
			s.hangs = cancel
			return func(ctx context.Context, address string) error { _, _ = browse(ctx, address); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			free, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, free.Close())
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			browser := &Browser{Out: io.Discard, RedirectURIs: []string{"http://" + free.Addr().String() + "/x"}, Open: stop(s, func() { cancel(cause) })}
			_, err = browser.Login(ctx, s.authorization())
			require.ErrorIs(t, err, cause)
			requireFree(t, free.Addr().String())
		})
	}
	_, err := (&Browser{}).Login(t.Context(), nil)
	require.Error(t, err)
}
