package authretry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// panicking is a Session that panics where it is told to.
type panicking struct{ where string }

func (p panicking) at(where string) {
	if p.where == where {
		panic(secret)
	}
}
func (p panicking) Covers(*url.URL) bool                     { p.at("Covers"); return true }
func (p panicking) Learn(*http.Response, bool) (bool, error) { p.at("Learn"); return true, nil }
func (p panicking) Authorize(req *http.Request) error {
	p.at("Authorize")
	req.Header["Authorization"] = []string{"Puppet"}
	return nil
}

// explosive is a body that panics when it is closed.
type explosive struct{ io.Reader }

func (explosive) Close() error { panic(secret) }

// Nothing that is called may end the program: a panic is an error of the request, which says where it was and keeps what
// it was to itself. The request ends in one EventDone all the same.
func TestPanicIsAnErrorOfTheRequest(t *testing.T) {
	panics := func() { panic(secret) }
	answer := func(where string) func(context.Context, *Challenge, *http.Response) (Session, error) {
		return func(context.Context, *Challenge, *http.Response) (Session, error) {
			if where == "Answer" {
				panics()
			}
			return panicking{where}, nil
		}
	}
	for _, where := range []string{"Base", "nil map", "Start", "Answer", "Authorize", "Learn", "Covers", "Refused", "OnEvent", "Done", "GetBody"} {
		t.Run(where, func(t *testing.T) {
			done := 0
			closed := false
			transport := &Transport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					switch where {
					case "Base":
						panics()
					case "nil map":
						req.Response.Header["x"] = nil
					}
					resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {"Puppet"}}, Body: closer{strings.NewReader("x"), &closed}}
					if where == "Refused" {
						resp.StatusCode = 400
					}
					return resp, nil
				}),
				Schemes: []Scheme{&puppet{name: "Puppet", answer: answer(where), start: func(context.Context, *http.Request) (Session, error) {
					if where == "Start" {
						panics()
					}
					return nil, nil
				}}},
				Refused: func(resp *http.Response) bool { panic(secret) },
				OnEvent: func(_ context.Context, e Event) {
					if e.Kind == EventDone {
						done++
					}
					if where == "OnEvent" && e.Kind == EventChallenged || where == "Done" && e.Kind == EventDone {
						panics()
					}
				},
			}
			if where == "Covers" { // it is asked once there is something to remember
				transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
				done, closed = 0, true
			}
			body := &tracked{Reader: strings.NewReader("a body")}
			req := httptest.NewRequest("PUT", "https://api.example.com/", nil)
			req.Body, req.ContentLength = body, 6
			if where == "GetBody" {
				req.GetBody = func() (io.ReadCloser, error) { panic(secret) }
			}
			_, err := transport.RoundTrip(req)
			var r *Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, ReasonMisconfigured, r.Reason)
			require.Equal(t, "https://api.example.com", r.Origin)
			require.ErrorContains(t, err, "panic")
			require.ErrorContains(t, err, "authretry.") // the function
			require.NotContains(t, err.Error(), secret)
			require.False(t, r.mayPass())
			require.Equal(t, 1, done)
			require.EqualValues(t, 1, body.closed.Load())
			if where != "Base" && where != "nil map" && where != "Start" {
				require.True(t, closed, "the response's body")
			}
		})
	}
}

// A copy of the body that nobody sends, because a callback panics before, is closed.
func TestCopyOfTheBodyIsClosedIfACallbackPanics(t *testing.T) {
	for _, where := range []string{"Jar", "OnEvent", "Close", "nowhere"} {
		t.Run(where, func(t *testing.T) {
			var response io.ReadCloser = http.NoBody
			if where == "Close" {
				response = explosive{strings.NewReader("")}
			}
			transport := &Transport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					req.Body.Close()
					resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {"Basic"}, "Set-Cookie": {"a=b"}}, Body: response}
					if req.Header.Get("Authorization") != "" {
						resp.StatusCode, resp.Body = 200, http.NoBody
					}
					return resp, nil
				}),
				Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
				OnEvent: func(_ context.Context, e Event) {
					if where == "OnEvent" && e.Kind == EventAuthorized {
						panic(secret)
					}
				},
			}
			if where == "Jar" {
				transport.Jar = panickingJar{}
			}
			src, again := &tracked{Reader: strings.NewReader("a body")}, &tracked{Reader: strings.NewReader("a body")}
			req := httptest.NewRequest("PUT", "https://api.example.com/", nil)
			req.Body, req.ContentLength = src, 6
			req.GetBody = func() (io.ReadCloser, error) { return again, nil }
			_, err := transport.RoundTrip(req)
			if where == "nowhere" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "panic")
			}
			require.EqualValues(t, 1, src.closed.Load())
			require.EqualValues(t, 1, again.closed.Load())
		})
	}
}

type panickingJar struct{}

func (panickingJar) SetCookies(*url.URL, []*http.Cookie) { panic(secret) }
func (panickingJar) Cookies(*url.URL) []*http.Cookie     { panic(secret) }

type closer struct {
	io.Reader
	closed *bool
}

func (c closer) Close() error { *c.closed = true; return nil }

// What we call in goroutines of our own, or of package context and time, has no caller whom a panic would reach.
func TestPanicInAGoroutineEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			cancel() // closes the body, in a goroutine
			synctest.Wait()
			return &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}},
				Body: explosive{slowly{}}}, nil // which is closed by a timer
		})}
		req := httptest.NewRequest("PUT", "https://api.example.com/", nil).WithContext(ctx)
		req.Body = explosive{strings.NewReader("x")}
		transport.RoundTrip(req)

		req = httptest.NewRequest("GET", "https://api.example.com/", nil)
		transport.RoundTrip(req)
	})
}

// slowly is a reader that needs a minute.
type slowly struct{}

func (slowly) Read([]byte) (int, error) { time.Sleep(time.Minute); return 0, io.EOF }

// uncomparable is a context that cannot be compared with another.
type uncomparable struct {
	context.Context
	_ []int
}

func TestContextOfAnyTypeAndResponseWithoutBody(t *testing.T) {
	for _, listen := range []bool{false, true} {
		server := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: 200, Header: http.Header{}} // neither Body nor Request
			if req.Header["Authorization"] == nil {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Basic realm="x"`}
			}
			return resp, nil
		})
		transport := &Transport{Base: server, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		if listen {
			transport.OnEvent = func(context.Context, Event) {}
		}
		for range 2 {
			req := httptest.NewRequest("PUT", "https://api.example.com/", strings.NewReader("body"))
			resp, err := transport.RoundTrip(req.WithContext(uncomparable{Context: t.Context()}))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			require.NotNil(t, resp.Body)
		}
		transport.Schemes = []Scheme{&Digest{Username: "u", Password: "p"}}
		refused := &Transport{Base: server, Schemes: transport.Schemes, OnEvent: transport.OnEvent}
		resp, err := refused.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil).WithContext(uncomparable{Context: t.Context()}))
		require.NoError(t, err)
		require.ErrorContains(t, Explain(resp), "Transport.Schemes has only Digest")
	}
}

// A deadline that passes while a token is waited for looks as it does in net/http, for programs that ask url.Error.
func TestDeadlineLooksAsInNetHTTP(t *testing.T) {
	cause := errors.New("the user has closed the window")
	for name, c := range map[string]struct {
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		timeout bool
		is      error
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		},
			true, context.DeadlineExceeded},
		"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, false, context.Canceled},
		"cause": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(cause) })
			return ctx, func() { cancel(nil) }
		}, false, cause},
	} {
		for _, sent := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					source := &TokenSource{FetchTimeout: 10 * time.Second, Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}}
					if sent {
						source.Initial = &oauth2.Token{AccessToken: "old", RefreshToken: "r"}
					}
					client := &http.Client{Transport: &Transport{Base: &saying{challenge: "Bearer"}, Schemes: []Scheme{&Bearer{Source: source}}}}
					ctx, cancel := c.ctx(t.Context())
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, "GET", "https://api.example.com/", nil)
					require.NoError(t, err)
					_, err = client.Do(req)
					var u *url.Error
					require.ErrorAs(t, err, &u)
					require.Equal(t, c.timeout, u.Timeout())
					require.ErrorIs(t, err, c.is)
					time.Sleep(time.Minute) // the refresh ends by itself
				})
			})
		}
	}
}

// A proxy's CONNECT is authorized by a goroutine of http.Transport.
func TestPanicInAProxysHooksIsAnErrorOfTheRequest(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	panics := func(context.Context, CredentialsRequest) (string, string, error) { panic(secret) }
	events := func(kind EventKind) func(context.Context, Event) {
		return func(_ context.Context, e Event) {
			if e.Kind == kind {
				panic(secret)
			}
		}
	}
	good := func() Scheme { return &Basic{Username: proxyUser, Password: goodPassword, Ahead: true} }
	hooked := func(base *http.Transport, before bool) *http.Transport {
		if before {
			base.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { panic(secret) }
		} else {
			base.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error { panic(secret) }
		}
		return base
	}
	for name, transport := range map[string]*ProxyTransport{
		"Start":                  NewProxyTransport(via(proxy), &Basic{Ahead: true, Credentials: panics}),
		"Answer":                 NewProxyTransport(via(proxy), &Basic{Credentials: panics}),
		"GetProxyConnectHeader":  NewProxyTransport(hooked(via(proxy), true), good()),
		"OnProxyConnectResponse": NewProxyTransport(hooked(via(proxy), false), good()),
		"OnEvent":                {Base: via(proxy), Schemes: []Scheme{good()}, OnEvent: events(EventAuthorized), AllowPlaintext: true},
		"Proxy":                  {Base: &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { panic(secret) }}, Schemes: []Scheme{good()}},
	} {
		body := &tracked{Reader: strings.NewReader("body")}
		req := httptest.NewRequest("PUT", "https://origin.test/", body)
		_, err := transport.RoundTrip(req)
		require.ErrorContains(t, err, "panicked", name)
		require.NotContains(t, err.Error(), secret)
		r, ok := errors.AsType[*Rejection](err)
		require.True(t, ok, name)
		require.Equal(t, ReasonMisconfigured, r.Reason, name)
		body.requireGoodUse(t)
		transport.CloseIdleConnections()
	}
}

// Those who wait get to know of a panic what can be known: its type and its place.
func TestPanicApartSaysWhatItWas(t *testing.T) {
	err := apart(func(value any) error { return &panicError{panicText(value)} }, func() error { panic(secret) })
	require.ErrorContains(t, err, "panicked with a value of type string, in ")
	require.ErrorContains(t, err, "TestPanicApartSaysWhatItWas")
	require.NotContains(t, err.Error(), secret)
	err = apart(func(value any) error { return &panicError{panicText(value)} }, func() error { return any(secret).(error) })
	require.ErrorContains(t, err, "interface conversion: string is not error", "the runtime's errors have no secrets")
	require.NotContains(t, err.Error(), secret)
	require.Equal(t, errEnded, apart(nil, func() error { runtime.Goexit(); return nil }))
	require.Equal(t, "Base, a Scheme or a callback panicked with a value of type string", panicText(secret), "nothing panics here")
}

// A Starter that panics, or ends the goroutine, leaves no request in the crowd of those that are out.
func TestStarterThatPanicsIsNotOut(t *testing.T) {
	srv := authtest.NewServer(&authtest.Digest{Username: "u", Password: "p"})
	defer srv.Close()
	bad := func() {}
	starter := &puppet{name: "Other", start: func(context.Context, *http.Request) (Session, error) { bad(); return nil, nil }}
	transport := New(&Digest{Username: "u", Password: "p"}, starter)
	client := &http.Client{Transport: transport}
	get := func(path string) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := client.Get(srv.URL + path); err == nil {
				resp.Body.Close()
			}
		}()
		<-done
	}
	get("/a/")
	for _, bad = range []func(){func() { panic("x") }, runtime.Goexit} {
		get("/b/") // which the server's word covers, but was not challenged
	}
	require.Len(t, transport.auth.spaces.known, 1)
	for _, known := range transport.auth.spaces.known {
		require.True(t, known.counts)
		require.Zero(t, known.here)
	}
}
