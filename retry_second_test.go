package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
)

func responseTo(req *http.Request, status int, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Request: req, Header: http.Header{}, Body: http.NoBody}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Add(header[i], header[i+1])
	}
	return resp
}

// What is learnt from a refusal whose request cannot be sent again serves the next request.
func TestAnswerThatCannotBeSentServesTheNextRequest(t *testing.T) {
	const challenge = `Digest realm="x", nonce="n1", algorithm=SHA-256, qop=`
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		scheme Scheme
		limit  int64
		edit   func(req *http.Request)
		reads  int // by Base, before it refuses
		offer  string
		want   error
	}{
		"GetBody fails": {scheme: &Basic{Username: "u", Password: "p"}, offer: `Basic realm="x"`, want: gone,
			edit: func(req *http.Request) { req.GetBody = func() (io.ReadCloser, error) { return nil, gone } }},
		"too long for a replay": {scheme: &Basic{Username: "u", Password: "p"}, limit: 10, reads: 200,
			offer: `Basic realm="x"`, want: errBodyNotReplayable},
		"too long to be hashed": {scheme: &Digest{Username: "u", Password: "p"}, limit: 10,
			offer: challenge + `"auth-int"`, want: errBodyNotHashable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				transport := &Transport{Schemes: []Scheme{c.scheme}, ReplayLimit: c.limit}
				transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sent = append(sent, req.Header.Get("Authorization"))
					if req.Body != nil {
						io.ReadFull(req.Body, make([]byte, c.reads))
						defer req.Body.Close()
					}
					if sent[len(sent)-1] != "" {
						return responseTo(req, 200), nil
					}
					return responseTo(req, 401, "Www-Authenticate", c.offer), nil
				})
				body := &tracked{Reader: strings.NewReader(strings.Repeat("x", 200))}
				req, err := http.NewRequest("PUT", "https://api.test/", body)
				require.NoError(t, err)
				if c.edit != nil {
					c.edit(req)
				}
				resp, err := transport.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				require.ErrorIs(t, Explain(resp), c.want)
				require.Len(t, sent, 1)
				body.requireGoodUse(t)
				require.Equal(t, 200, roundTrip(t, transport, "https://api.test/").StatusCode)
				require.Len(t, sent, 2)
				require.NotEmpty(t, sent[1], "it goes ahead")
			})
		})
	}
}

// A body that its context has closed is not what keeps a refusal from being answered: it is the end of the context.
func TestContextThatEndsWithTheRefusalIsTheError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the user has left")
	body := &tracked{Reader: strings.NewReader("hello")}
	scheme := &puppet{name: "Puppet", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		cancel(over)
		body.requireGoodUse(t) // it is closed by now
		return word{text: "Puppet x"}, nil
	}}
	transport := &Transport{Schemes: []Scheme{scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		io.ReadAll(req.Body)
		req.Body.Close()
		return responseTo(req, 401, "Www-Authenticate", "Puppet"), nil
	})}
	req, err := http.NewRequestWithContext(ctx, "PUT", "https://api.test/", body)
	require.NoError(t, err)
	_, err = transport.RoundTrip(req)
	require.ErrorIs(t, err, over)
}

// A server that does not like our Expect is asked without, and what comes then is as from any other.
func TestWhatComesAfterAnExpectThatWasNotLiked(t *testing.T) {
	broken := errors.New("the connection is gone")
	for _, status := range []int{200, 401, 0} {
		var events []EventKind
		discarded := &closeCounter{Reader: strings.NewReader("no")}
		n := 0
		transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
			OnEvent: func(_ context.Context, e Event) { events = append(events, e.Kind) },
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if n++; req.Header.Get("Expect") != "" {
					resp := responseTo(req, 417)
					resp.Body = discarded
					return resp, nil
				}
				if status == 0 {
					return nil, broken
				}
				return responseTo(req, status, "Www-Authenticate", `Basic realm="x"`), nil
			})}
		req, err := http.NewRequest("PUT", "https://api.test/", strings.NewReader(strings.Repeat("x", defaultReplayLimit+1)))
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		if status == 0 {
			require.Equal(t, broken, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
		require.Equal(t, 2, n)
		require.EqualValues(t, 1, discarded.closed.Load())
		if status == 200 {
			require.NoError(t, Explain(resp))
			require.Equal(t, []EventKind{EventDone}, events)
		} else {
			require.ErrorIs(t, Explain(resp), errExpectRefused)
			require.Equal(t, []EventKind{EventChallenged, EventRefused, EventDone}, events)
		}
	}
}

// A body that cannot be sent again goes on at once where the server does not like our Expect, and is closed.
func TestBodyGoesOnAfterAnExpectThatWasNotLiked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = defaultReplayLimit + 1
		start, read := time.Now(), make(chan int64, 1)
		transport := New(&Basic{Username: "u", Password: "p"})
		transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.NotEmpty(t, req.Header.Get("Expect"))
			go func() { // as http.Transport goes on with what it has begun to send
				n, _ := io.Copy(io.Discard, req.Body)
				req.Body.Close()
				read <- n
			}()
			return responseTo(req, 417), nil
		})
		body := &closeCounter{Reader: strings.NewReader(strings.Repeat("x", size))}
		req, err := http.NewRequest("PUT", "https://api.test/", body)
		require.NoError(t, err)
		req.ContentLength = size
		req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 417, resp.StatusCode)
		require.EqualValues(t, size, <-read)
		require.Zero(t, time.Since(start))
		require.EqualValues(t, 1, body.closed.Load())
	})
}

// A response that the Session does not accept is closed, and so is the body that was being sent.
func TestResponseThatIsNotAcceptedIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("the server has not proved who it is")
		answer := &closeCounter{Reader: strings.NewReader("trust me")}
		scheme := &puppet{name: "Puppet", start: func(context.Context, *http.Request) (Session, error) {
			return word{text: "Puppet x", err: bad}, nil
		}}
		transport := &Transport{Schemes: []Scheme{scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			req.Body.Close()
			resp := responseTo(req, 200)
			resp.Body = answer
			return resp, nil
		})}
		body := &closeCounter{Reader: io.MultiReader(strings.NewReader("hello"))}
		req, err := http.NewRequest("PUT", "https://api.test/", body)
		require.NoError(t, err)
		_, err = transport.RoundTrip(req)
		require.ErrorIs(t, err, bad)
		require.EqualValues(t, 1, answer.closed.Load())
		require.EqualValues(t, 1, body.closed.Load())
	})
}

// The error of a Session for a proxy is its own, and not that it has set nothing. One that sets nothing, or more than a proxy may
// get, is an error too.
func TestProxySessionThatFails(t *testing.T) {
	asked := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Proxy-Authenticate", "Puppet")
		w.WriteHeader(407)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	locked := errors.New("the key is locked")
	for _, want := range []error{locked, errNoProxyCredentials} {
		for _, more := range []bool{false, true} {
			for _, target := range []string{"http://api.test/", "https://api.test/"} {
				asked = 0
				scheme := &puppet{name: "Puppet", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
					return authorizeFunc(func(req *http.Request) error {
						if more {
							req.Header.Set("Authorization", "Puppet x")
							req.Header.Set("X-Api-Key", "x")
						}
						if want == locked {
							return locked
						}
						return nil
					}), nil
				}}
				transport := NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(u)}, scheme)
				_, err = transport.RoundTrip(httptest.NewRequest("GET", target, nil))
				require.ErrorIs(t, err, want)
				require.Equal(t, 1, asked)
				transport.CloseIdleConnections()
			}
		}
	}
}

type authorizeFunc func(req *http.Request) error

func (f authorizeFunc) Authorize(req *http.Request) error { return f(req) }

// Where a server forgets what was good, Explain says so, and fewer requests go out at once.
func TestForgottenNonceIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		crowd   int    // others that are out
		lent    bool   // one of them has the nonce that is known
		refuses int    // sends, after the first request
		want    string // what Explain says
		bounded bool
	}{
		"the nonce was good":                  {refuses: 2, want: "AuthDigestShmemSize"},
		"the nonce was good, in a crowd":      {refuses: 2, crowd: 7, want: "AuthDigestShmemSize", bounded: true},
		"the next one is good":                {refuses: 1, crowd: 7, bounded: true},
		"one that was given a moment ago":     {refuses: 2, crowd: 7, lent: true, want: "AuthDigestShmemSize", bounded: true},
		"one of those, and no others are out": {refuses: 2, lent: true, want: "credentials were refused"},
	} {
		t.Run(name, func(t *testing.T) {
			n, refuses := 0, 1
			transport := New(&Digest{Username: "u", Password: "p"})
			transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if refuses--; refuses < 0 {
					return responseTo(req, 200), nil
				}
				n++
				return responseTo(req, 401, "Www-Authenticate", fmt.Sprintf(`Digest realm="x", qop="auth", nonce="n%d"`, n)), nil
			})
			require.Equal(t, 200, roundTrip(t, transport, "https://api.test/").StatusCode)
			known := transport.auth.spaces.of(spacesOf("", "api.test"))
			for range c.crowd {
				known.enter()
			}
			if c.lent {
				known.takeIdle(known.spaces[0])
			}
			refuses = c.refuses
			resp := roundTrip(t, transport, "https://api.test/")
			if c.want == "" {
				require.Equal(t, 200, resp.StatusCode)
			} else {
				require.Equal(t, 401, resp.StatusCode)
				require.ErrorContains(t, Explain(resp), c.want)
			}
			require.Equal(t, c.bounded, boundOf(transport) > 0)
		})
	}
}

// The connection of a Carrier that nobody else is going to use is closed when the caller has read from it, not before.
func TestCarrierIsClosedAfterTheCallerHasRead(t *testing.T) {
	h := &handshake{}
	s := newConnectionServer(t)
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{&puppet{name: "Handshake",
		start: func(_ context.Context, req *http.Request) (Session, error) { return &handshaken{h: h, url: s.URL}, nil }}}}
	resp, err := transport.RoundTrip(httptest.NewRequest("GET", s.URL, nil))
	require.NoError(t, err)
	before := h.idle.Load()
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	require.Equal(t, before+1, h.idle.Load())
}

// A header of the caller's that a Session has replaced is the caller's again in the request that the response shows, also
// where Base has sent another in its place.
func TestResponseShowsTheCallersHeader(t *testing.T) {
	status := 0
	transport := New(&puppet{name: "Puppet",
		start: func(context.Context, *http.Request) (Session, error) { return replacingSession{}, nil },
		answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
			return nil, ErrUnsupportedChallenge
		}})
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		require.Equal(t, secret, req.Header.Get("X-Token"))
		own := req.Clone(req.Context())
		own.Header.Set("User-Agent", "Base's")
		return responseTo(own, status), nil
	})
	for _, status = range []int{200, 401} { // of which one is explained
		req := httptest.NewRequest("GET", "https://api.test/", nil)
		req.Header.Set("X-Token", "the caller's")
		req.Header.Set("User-Agent", "the caller's")
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, http.Header{"X-Token": {"the caller's"}, "User-Agent": {"Base's"}}, resp.Request.Header)
	}
}

// A Session that cannot be sent with one request, because its body cannot be hashed, is there for the next.
func TestSessionThatOneRequestCannotUseServesTheNext(t *testing.T) {
	var sent []string
	transport := &Transport{ReplayLimit: 10, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		name, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
		sent = append(sent, req.Method+" "+name)
		if req.Method == "GET" && name == "" {
			return responseTo(req, 401, "Www-Authenticate", `Digest realm="x", nonce="n", qop="auth-int"`), nil
		}
		closeBody(req)
		return responseTo(req, 200), nil
	})
	for _, method := range []string{"GET", "POST", "GET"} {
		req := httptest.NewRequest(method, "https://api.test/", nil)
		if method == "POST" {
			req.Body = &tracked{Reader: strings.NewReader("a body that is not kept")}
			req.ContentLength = -1
		}
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Equal(t, []string{"GET ", "GET Digest", "POST ", "GET Digest"}, sent)
}

type replacingSession struct{}

func (replacingSession) Authorize(req *http.Request) error {
	req.Header["X-Token"] = []string{secret}
	return nil
}

// A cookie that the refusal deletes does not go out with the retry, also if it was the only one.
func TestCookieThatTheRefusalDeletesIsGone(t *testing.T) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	u := urlOf(t, "https://api.test/")
	jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: "old"}})
	var cookies []string
	client := &http.Client{Jar: jar, Transport: &Transport{Jar: jar, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			cookies = append(cookies, req.Header.Get("Cookie"))
			if req.Header.Get("Authorization") == "" {
				return responseTo(req, 401, "Www-Authenticate", "Basic", "Set-Cookie", "session=; Max-Age=0"), nil
			}
			return responseTo(req, 200), nil
		})}}
	_, err = client.Get(u.String())
	require.NoError(t, err)
	require.Equal(t, []string{"session=old", ""}, cookies)
}

// What is not http gets no credentials, whatever Base makes of it.
func TestOtherURLSchemesGetNoCredentials(t *testing.T) {
	var sent atomic.Int32
	transport := &Transport{AllowPlaintext: true, Schemes: []Scheme{&Basic{Username: "u", Password: "p", Ahead: true}},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent.Add(1)
			require.Empty(t, req.Header.Get("Authorization"))
			return responseTo(req, 401, "Www-Authenticate", "Basic"), nil
		})}
	for _, text := range []string{"ftp://127.0.0.1/", "file:///etc/passwd", "unix://api.test/", "api.test"} {
		_, err := transport.RoundTrip(&http.Request{Method: "GET", URL: urlOf(t, text), Header: http.Header{}})
		require.NoError(t, err)
	}
	require.EqualValues(t, 4, sent.Load())
}

// A Base that returns a response with an error, or one from elsewhere, leaves nothing open.
func TestResponsesThatNobodyGetsAreClosed(t *testing.T) {
	broken := errors.New("broken")
	elsewhere := httptest.NewRequest("GET", "https://evil.test/", nil)
	for name, c := range map[string]struct {
		err  error
		from *http.Request
	}{"with an error": {err: broken}, "from elsewhere": {from: elsewhere}} {
		t.Run(name, func(t *testing.T) {
			body := &closeCounter{Reader: strings.NewReader("x")}
			transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p", Ahead: true}},
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp := responseTo(req, 200)
					resp.Body = body
					if c.from != nil {
						resp.Request = c.from.Clone(t.Context())
						resp.Request.Response = responseTo(req, 302)
					}
					return resp, c.err
				})}
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
			require.Error(t, err)
			require.EqualValues(t, 1, body.closed.Load())
		})
	}
}

// A refusal does not fill the Jar.
func TestCookiesOfARefusalAreBounded(t *testing.T) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	transport := &Transport{Jar: jar, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Authorization") != "" {
			return responseTo(req, 200), nil
		}
		resp := responseTo(req, 401, "Www-Authenticate", `Basic realm="x"`, "Set-Cookie", "long="+strings.Repeat("x", 10_000))
		for i := range 1_000 {
			resp.Header.Add("Set-Cookie", fmt.Sprintf("c%d=x", i))
		}
		return resp, nil
	})
	require.Equal(t, 200, roundTrip(t, transport, "https://api.test/").StatusCode)
	cookies := jar.Cookies(urlOf(t, "https://api.test/"))
	require.Len(t, cookies, 256)
	require.False(t, slices.ContainsFunc(cookies, func(c *http.Cookie) bool { return c.Name == "long" }))
}

// Idle connections can be closed before the first request.
func TestCloseIdleConnectionsOfAnUnusedTransport(t *testing.T) {
	closed := 0
	transport := &Transport{Base: idleCloser{&closed}, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
	transport.CloseIdleConnections()
	require.Equal(t, 1, closed)

	retrying := retryablehttp.NewClient()
	retrying.HTTPClient.Transport = idleCloser{&closed}
	transport = &Transport{Base: &retryablehttp.RoundTripper{Client: retrying}, Schemes: transport.Schemes}
	transport.CloseIdleConnections()
	require.Equal(t, 2, closed)
}

type idleCloser struct{ n *int }

func (c idleCloser) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("no") }
func (c idleCloser) CloseIdleConnections()                           { *c.n++ }

// A ProxyTransport without a proxy sends to where the URL says, whatever the request's Host is.
func TestHostOfARequestThatNoProxyGets(t *testing.T) {
	direct := func(*http.Request) (*url.URL, error) { return nil, nil }
	for name, base := range map[string]*ProxyTransport{
		"no Proxy":      NewProxyTransport(&http.Transport{}, &Basic{Username: "u", Password: "p"}),
		"no Schemes":    {Base: &http.Transport{}},
		"nil":           nil,
		"a direct Base": NewProxyTransport(&http.Transport{Proxy: direct}, &Basic{Username: "u", Password: "p"}),
	} {
		req, err := http.NewRequest("GET", "http://api.test/", nil)
		require.NoError(t, err)
		req.Host = "virtual.test"
		transport := &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "Mufasa", Password: "secret"}}}
		require.Equal(t, originOf(req.URL), goesTo(transport, req), name)
	}
}

// Who listens hears of requests that pass without credentials, and how long they took.
func TestPassedRequestsAreTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []Event
		transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
			OnEvent: func(_ context.Context, e Event) { done = append(done, e) },
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				return responseTo(req, 200), nil
			})}
		req := httptest.NewRequest("GET", "https://api.test/", nil)
		req.Header.Set("Authorization", "Own x")
		_, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.Len(t, done, 1)
		require.Equal(t, EventDone, done[0].Kind)
		require.Equal(t, time.Second, done[0].Duration)
	})
}
