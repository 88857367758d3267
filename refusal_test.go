package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A puppet is a Scheme whose every method is the test's to say.
type puppet struct {
	name   string
	start  func(ctx context.Context, req *http.Request) (Session, error)
	answer func(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error)
}

func (p *puppet) Name() string { return p.name }

func (p *puppet) Start(ctx context.Context, req *http.Request) (Session, error) {
	if p.start == nil {
		return nil, nil
	}
	return p.start(ctx, req)
}

func (p *puppet) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	return p.answer(ctx, c, refusal)
}

// A word is a Session that puts itself into Authorization, and notes what it gets to learn.
type word struct {
	text   string
	keep   bool
	err    error
	learnt *[]string
	covers func(*url.URL) bool
}

func (w word) Authorize(req *http.Request) error {
	req.Header["Authorization"] = []string{w.text}
	return nil
}

func (w word) Learn(resp *http.Response, refused bool) (bool, error) {
	if w.learnt != nil {
		*w.learnt = append(*w.learnt, fmt.Sprintf("%d %v %s", resp.StatusCode, refused, resp.Request.Header.Get("Authorization")))
	}
	return w.keep, w.err
}

// A coveringWord knows its protection space.
type coveringWord struct{ word }

func (w coveringWord) Covers(u *url.URL) bool { return w.covers(u) }

// A saying server answers 200 to the right Authorization, and its challenge to any other. It keeps what it was sent.
type saying struct {
	right     string
	challenge string
	sent      []string
}

func (s *saying) RoundTrip(req *http.Request) (*http.Response, error) {
	s.sent = append(s.sent, req.Header.Get("Authorization"))
	resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
	if s.right == "" || req.Header.Get("Authorization") != s.right {
		resp.StatusCode = 401
		resp.Header["Www-Authenticate"] = []string{s.challenge}
	}
	return resp, nil
}

func roundTrip(t *testing.T, rt http.RoundTripper, url string) *http.Response {
	t.Helper()
	resp, err := rt.RoundTrip(httptest.NewRequest("GET", url, nil))
	require.NoError(t, err)
	return resp
}

// A Scheme sees the response that refused, with its own credentials and nobody else's, and cannot take its body.
func TestSchemeSeesTheRefusal(t *testing.T) {
	var own, foreign *http.Response
	var read error
	sender := &puppet{name: "Sender",
		start: func(context.Context, *http.Request) (Session, error) { return word{text: "Sender " + secret}, nil },
		answer: func(_ context.Context, c *Challenge, refusal *http.Response) (Session, error) {
			require.Nil(t, c)
			own = refusal
			_, read = io.ReadAll(refusal.Body)
			refusal.Header.Set("Set-By", "the Scheme")
			return nil, ErrUnsupportedChallenge
		}}
	other := &puppet{name: "Other", answer: func(_ context.Context, c *Challenge, refusal *http.Response) (Session, error) {
		require.Equal(t, "x", c.Params.Get("realm"))
		foreign = refusal
		return nil, ErrUnsupportedChallenge
	}}
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: io.NopCloser(strings.NewReader("who are you?")), Request: req,
			Header: http.Header{"Www-Authenticate": {`Other realm="x"`}, "Proof-Nonce": {"n"}}}, nil
	})
	req := httptest.NewRequest("POST", "https://api.example.com/a?b=c", strings.NewReader("body"))
	req.Header.Set("X-Mine", "kept")
	resp, err := (&Transport{Base: base, Schemes: []Scheme{sender, other}}).RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "who are you?", string(body), "the caller gets the body unread")
	require.ErrorContains(t, read, "must not read the body")
	require.NotContains(t, resp.Header, "Set-By", "it is a copy")
	for _, refusal := range []*http.Response{own, foreign} {
		require.Equal(t, 401, refusal.StatusCode)
		require.Equal(t, "n", refusal.Header.Get("Proof-Nonce"))
		require.Equal(t, "POST", refusal.Request.Method)
		require.Equal(t, "https://api.example.com/a?b=c", refusal.Request.URL.String())
		require.Equal(t, "kept", refusal.Request.Header.Get("X-Mine"))
		require.Nil(t, refusal.Request.Body)
	}
	require.Equal(t, "Sender "+secret, own.Request.Header.Get("Authorization"))
	require.Empty(t, foreign.Request.Header["Authorization"])
}

// To a proxy's Scheme, the proxy speaks like an origin.
func TestProxysRefusalIsInAnOriginsWords(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	var seen, learnt []string
	scheme := &puppet{name: "Basic", answer: func(_ context.Context, c *Challenge, refusal *http.Response) (Session, error) {
		seen = append(seen, refusal.Request.Method)
		require.NotNil(t, c)
		require.Equal(t, 407, refusal.StatusCode)
		require.NotEmpty(t, refusal.Header["Www-Authenticate"])
		require.Empty(t, refusal.Header["Proxy-Authenticate"])
		require.Equal(t, "/", refusal.Request.URL.Path)
		return word{text: "Basic d3Jvbmc6d3Jvbmc=", learnt: &learnt}, nil
	}}
	client := proxyClient(t, via(proxy), scheme)
	get(t, client, "http://origin.test/")
	_, err := client.Get("https://origin.test/")
	require.Error(t, err)
	require.Equal(t, []string{"GET", "CONNECT"}, seen)
	require.Equal(t, []string{"407 true Basic d3Jvbmc6d3Jvbmc=", "407 true Basic d3Jvbmc6d3Jvbmc="}, learnt)
}

// Every response teaches; after a second refusal, the Session itself decides whether it is kept.
func TestLearnDecidesAfterASecondRefusal(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			var learnt []string
			server := &saying{challenge: "Word"}
			transport := &Transport{Base: server, Schemes: []Scheme{&puppet{name: "Word",
				answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
					return word{text: "Word 1", keep: keep, learnt: &learnt, err: errors.New("ignored for a refusal")}, nil
				}}}}
			require.Equal(t, 401, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
			server.right = "Word 1"
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/a", nil))
			require.ErrorContains(t, err, "ignored for a refusal", "and not ignored for a success")
			require.Equal(t, map[bool][]string{
				false: {"", "Word 1", "", "Word 1"},
				true:  {"", "Word 1", "Word 1"},
			}[keep], server.sent)
			require.Equal(t, []string{"401 true Word 1", "200 false Word 1"}, learnt)
		})
	}
}

// What a Scheme says of a challenge that it cannot answer refuses no credentials: they are remembered.
func TestSpaceIsForgottenOnlyIfItsCredentialsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		forgets bool
	}{
		"unsupported": {fmt.Errorf("%w: insufficient_scope", ErrUnsupportedChallenge), false},
		"no answer":   {errors.New("the vault is closed"), false},
		"refused":     {ErrCredentialsRefused, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := error(nil)
			server := &saying{challenge: "Word", right: "Word 1"}
			transport := &Transport{Base: server, Schemes: []Scheme{&puppet{name: "Word",
				answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return word{text: "Word 1"}, err }}}}
			roundTrip(t, transport, "https://api.example.com/a")
			server.right, err = "none", c.err
			transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/a", nil))
			server.right, err = "Word 1", nil
			server.sent = nil
			roundTrip(t, transport, "https://api.example.com/a")
			require.Equal(t, map[bool][]string{true: {"", "Word 1"}, false: {"Word 1"}}[c.forgets], server.sent)
		})
	}
}

// A server that changes from one scheme to another and back is asked in vain once each time.
func TestServerThatChangesItsScheme(t *testing.T) {
	server := &saying{}
	session := func(text string) func(context.Context, *Challenge, *http.Response) (Session, error) {
		return func(_ context.Context, c *Challenge, _ *http.Response) (Session, error) {
			if c == nil {
				return nil, ErrCredentialsRefused
			}
			return word{text: text}, nil
		}
	}
	transport := &Transport{Base: server, Schemes: []Scheme{&puppet{name: "A", answer: session("A")}, &puppet{name: "B", answer: session("B")}}}
	for range 3 {
		for _, scheme := range []string{"A", "B"} {
			server.right, server.challenge, server.sent = scheme, scheme, nil
			for range 3 {
				require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
			}
			require.Len(t, server.sent, 4)
		}
	}
}

// A Starter is asked for every request: nothing that it returned before, and nothing that took its place after a refusal, is
// used in its stead.
func TestStarterIsNeverReplacedByWhatItReturned(t *testing.T) {
	calls := 0
	server := &saying{right: "ApiKey key2", challenge: "ApiKey"}
	transport := &Transport{Base: server, Schemes: []Scheme{&APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) {
		calls++
		return fmt.Sprint("key", calls), nil // a key that rotates all the time
	}}}}
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	server.right = "ApiKey key3"
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	require.Equal(t, []string{"ApiKey key1", "ApiKey key2", "ApiKey key3"}, server.sent, "the key that was good in the retry is not pinned")
}

// Covers has the last word, also for the path that was challenged.
func TestCoversIsFinal(t *testing.T) {
	server := &saying{right: "Word 1", challenge: "Word"}
	transport := &Transport{Base: server, Schemes: []Scheme{&puppet{name: "Word",
		answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
			return coveringWord{word{text: "Word 1", covers: func(u *url.URL) bool { return u.Path == "/other" }}}, nil
		}}}}
	for _, path := range []string{"/a", "/a", "/other"} {
		roundTrip(t, transport, "https://api.example.com"+path)
	}
	require.Equal(t, []string{"", "Word 1", "", "Word 1", "Word 1"}, server.sent)
}

// A Scheme that knows better than we do why it was refused says so by a Rejection.
func TestSchemesOwnRejectionCounts(t *testing.T) {
	for name, wrap := range map[string]error{"unsupported": ErrUnsupportedChallenge, "refused": ErrCredentialsRefused, "fails": nil} {
		t.Run(name, func(t *testing.T) {
			said := errors.Join(&Rejection{Reason: ReasonInsufficientScope, Err: errors.New("scope push is not granted")}, wrap)
			transport := &Transport{Base: &saying{challenge: "Word"}, Schemes: []Scheme{&puppet{name: "Word",
				answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return nil, said }}}}
			r := rejectionFor(t, transport, "https://api.example.com/a")
			require.Equal(t, ReasonInsufficientScope, r.Reason)
			require.Equal(t, 401, r.Status)
			require.Len(t, r.Challenges, 1)
			require.Equal(t, "https://api.example.com", r.Origin)
			require.ErrorIs(t, r, said)
		})
	}
}

// When a token cannot be had after a 401, the error says what the 401 said.
func TestFailureAfterARefusalKeepsWhatTheRefusalSaid(t *testing.T) {
	source := &TokenSource{
		Initial: &oauth2.Token{AccessToken: "old", RefreshToken: secret},
		Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return nil, errors.New("the network is down")
		},
	}
	r := rejectionFor(t, &Transport{Base: &saying{challenge: `Bearer realm="x"`}, Schemes: []Scheme{&Bearer{Source: source}}}, "https://api.example.com/a")
	require.Equal(t, ReasonNoCredentials, r.Reason)
	require.Equal(t, 401, r.Status)
	require.Equal(t, "x", r.Challenges[0].Params.Get("realm"))
	require.ErrorContains(t, r, "the server answered 401: no new token could be obtained: the network is down")
}

// A Scheme that is its own Session, an Exclusive that is a Starter, all at once.
type itself struct{ n *atomic.Int32 }

func (itself) Name() string                                            { return "Itself" }
func (itself) Exclusive()                                              {}
func (s itself) Start(context.Context, *http.Request) (Session, error) { return s, nil }
func (itself) Learn(*http.Response, bool) (bool, error)                { return true, nil }
func (itself) Covers(*url.URL) bool                                    { return true }
func (s itself) Authorize(req *http.Request) error {
	req.Header.Set("Authorization", fmt.Sprint("Itself ", s.n.Add(1)))
	return nil
}
func (s itself) Answer(context.Context, *Challenge, *http.Response) (Session, error) { return s, nil }

func TestSchemeThatIsItsOwnSession(t *testing.T) {
	server := &saying{right: "Itself 4", challenge: "Itself"}
	transport := &Transport{Base: server, Schemes: []Scheme{itself{new(atomic.Int32)}}}
	require.Equal(t, 401, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	require.Equal(t, []string{"Itself 1", "Itself 2", "Itself 3", "Itself 4"}, server.sent)
}

// Transport.Refused says what is a refusal besides 401.
func TestRefusedSaysWhatIsARefusal(t *testing.T) {
	expired := `{"error":"token expired"}` + strings.Repeat(" ", 100<<10)
	var read int
	body := func(resp *http.Response) bool {
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		read = max(read, len(b))
		return resp.StatusCode == 200 && strings.Contains(string(b), "expired")
	}
	for name, c := range map[string]struct {
		refused func(*http.Response) bool
		right   string
		status  int
		reason  Reason
		sends   int
	}{
		"never":           {nil, "", 200, 0, 1},
		"for ever":        {func(*http.Response) bool { return true }, "", 200, ReasonFreshTokenRefused, 2},
		"by the body":     {body, "Bearer new", 200, 0, 2},
		"a body for ever": {body, "", 200, ReasonFreshTokenRefused, 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			source := &TokenSource{
				Initial: &oauth2.Token{AccessToken: "old", RefreshToken: "r"},
				Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					return &oauth2.Token{AccessToken: "new"}, nil
				},
			}
			transport := &Transport{Schemes: []Scheme{&Bearer{Source: source}}, Refused: c.refused,
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					n++
					text := expired
					if req.Header.Get("Authorization") == c.right {
						text = "welcome"
					}
					return &http.Response{StatusCode: 200, Request: req, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}, nil
				})}
			resp := roundTrip(t, transport, "https://api.example.com/")
			require.Equal(t, c.sends, n)
			require.Equal(t, c.status, resp.StatusCode)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			if c.right != "" {
				require.Equal(t, "welcome", string(got))
			} else {
				require.Equal(t, expired, string(got), "what was read is put back")
			}
			if c.reason == 0 {
				require.NoError(t, Explain(resp))
				return
			}
			var r *Rejection
			require.ErrorAs(t, Explain(resp), &r)
			require.Equal(t, c.reason, r.Reason)
			require.Equal(t, 200, r.Status)
		})
	}
	require.Equal(t, 64<<10, read, "no more than that is to be read")
}

// What Transport.Refused calls a refusal has not accepted a token.
func TestRefusedResponseTeachesNobodyThatATokenIsGood(t *testing.T) {
	var learnt []string
	server := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 403, Request: req, Header: http.Header{}, Body: http.NoBody}, nil
	})
	transport := &Transport{Base: server, Refused: forbidden[true], Schemes: []Scheme{&puppet{name: "Word",
		start: func(context.Context, *http.Request) (Session, error) {
			return word{text: "Word 1", learnt: &learnt}, nil
		},
		answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
			return word{text: "Word 2", learnt: &learnt}, nil
		}}}}
	resp := roundTrip(t, transport, "https://api.example.com/")
	require.Equal(t, 403, resp.StatusCode)
	require.Equal(t, []string{"403 true Word 1", "403 true Word 2"}, learnt)
	require.ErrorContains(t, Explain(resp), "answered 403: the Word credentials were refused")
}

// Statuses that say something else already are not put to Transport.Refused.
func TestRefusedIsNotAskedForEverything(t *testing.T) {
	for _, status := range []int{101, 401, 407} {
		transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
			Refused: func(*http.Response) bool { t.Errorf("asked for a %d", status); return true },
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Request: req, Header: http.Header{}, Body: http.NoBody}, nil
			})}
		require.Equal(t, status, roundTrip(t, transport, "https://api.example.com/").StatusCode)
	}
	n := 0
	transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
		Refused: func(resp *http.Response) bool { return resp.StatusCode == 417 },
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			n++
			resp := &http.Response{StatusCode: 417, Request: req, Header: http.Header{}, Body: http.NoBody}
			if req.Header.Get("Expect") == "" {
				resp.StatusCode = 200
			}
			return resp, nil
		})}
	req := httptest.NewRequest("POST", "https://api.example.com/", io.MultiReader(strings.NewReader("large")))
	req.ContentLength = 1 << 30
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, "417 was the answer to our own Expect")
	require.Equal(t, 2, n)
}

// A request that goes without the Session that was lent for it is not counted for ever among those that are out.
func TestRequestsThatTakeNoSessionAreNotCounted(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		switch {
		case strings.HasPrefix(req.URL.Path, "/digest/") && req.Header.Get("Authorization") == "":
			resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="x", nonce="n", qop="auth"`}
		case strings.HasPrefix(req.URL.Path, "/token/") && req.Header.Get("X-Auth-Token") == "":
			resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Bearer`}
		}
		return resp, nil
	})
	digest := &Digest{Username: "u", Password: "p"}
	for name, schemes := range map[string][]Scheme{
		"the caller has a token of their own": {digest, &Bearer{NotAhead: true, Header: "X-Auth-Token", Source: expiringSource()}},
		"another is sent ahead":               {digest, &APIKey{Header: "X-API-Key", Key: "k"}},
	} {
		transport := &Transport{Base: base, Schemes: schemes}
		for i := range 10 {
			for _, path := range []string{"/digest/a", "/token/a", "/other"} {
				req := httptest.NewRequest("GET", "https://api.example.com"+path, nil)
				if i > 0 && path == "/token/a" {
					req.Header.Set("X-Auth-Token", "own")
				}
				_, err := transport.RoundTrip(req)
				require.NoError(t, err)
			}
		}
		for _, known := range transport.auth.spaces.known {
			require.True(t, known.counts, name)
			require.Zero(t, known.here, name)
		}
	}
}

// Transport.Refused may read in any way; what it has read comes back with the error that it met, and with no other.
func TestWhatRefusedHasReadEndsAsItDid(t *testing.T) {
	lost := errors.New("connection reset")
	read := 0
	body := readerFunc(func(p []byte) (int, error) {
		if read++; read == 1 {
			return copy(p, "half"), nil
		} else if read == 2 {
			return 0, lost
		}
		return 0, io.EOF
	})
	transport := &Transport{Schemes: []Scheme{&APIKey{Key: "k"}},
		Refused: func(resp *http.Response) bool {
			n, err := resp.Body.Read(nil)
			require.NoError(t, err)
			require.Zero(t, n)
			got, err := io.ReadAll(resp.Body)
			require.Equal(t, lost, err)
			require.Equal(t, "half", string(got))
			_, err = resp.Body.Read(make([]byte, 1))
			require.Equal(t, lost, err, "and it does not go on after that")
			return false
		},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		})}
	got, err := io.ReadAll(roundTrip(t, transport, "https://api.example.com/").Body)
	require.Equal(t, lost, err, "the body is not whole")
	require.Equal(t, "half", string(got))
}

// The header that a Session sees is its own to write to, also where Base has given none.
func TestHeaderOfAResponseWithoutOne(t *testing.T) {
	scheme := &puppet{name: "Puppet", start: func(context.Context, *http.Request) (Session, error) { return headerWriter{}, nil }}
	transport := &Transport{Schemes: []Scheme{scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody}, nil
	})}
	scheme.answer = func(context.Context, *Challenge, *http.Response) (Session, error) { return nil, ErrCredentialsRefused }
	require.Equal(t, 401, roundTrip(t, transport, "https://api.example.com/").StatusCode)
}

type headerWriter struct{}

func (headerWriter) Authorize(req *http.Request) error {
	req.Header.Set("Authorization", "Puppet x")
	return nil
}
func (headerWriter) Learn(resp *http.Response, _ bool) (bool, error) {
	resp.Header.Set("Seen", "by the Session")
	return false, nil
}
