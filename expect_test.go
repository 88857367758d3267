package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const tooLarge = defaultReplayLimit + 1 // to be sent again without GetBody

// uploadOnce sends a body that cannot be sent again, and returns the status.
func uploadOnce(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	body := &tracked{Reader: strings.NewReader(strings.Repeat("x", tooLarge))}
	req, err := http.NewRequest("PUT", url, body)
	require.NoError(t, err)
	req.ContentLength = tooLarge
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	body.requireGoodUse(t)
	return resp.StatusCode
}

// A nonce that has become stale does not cost an upload: the body is announced, so nothing of it is sent before the new nonce is there.
func TestStaleNonceDoesNotCostAnUpload(t *testing.T) {
	for name, newServer := range map[string]func(...authtest.Guard) *authtest.Server{
		"HTTP/1.1": authtest.NewServer, "TLS": authtest.NewTLSServer, "HTTP/2": authtest.NewHTTP2Server,
	} {
		t.Run(name, func(t *testing.T) { staleBeforeUploads(t, newServer()) })
	}
}

func staleBeforeUploads(t *testing.T, srv *authtest.Server) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	defer srv.Close()
	srv.Protect("/", guard)
	var sizes []int64
	srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		sizes = append(sizes, n)
	}))
	client := &http.Client{Transport: &Transport{Base: srv.Client().Transport, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	for range 3 {
		require.Equal(t, 200, uploadOnce(t, client, srv.URL+"/file"))
		guard.GoStale()
	}
	require.Equal(t, []int64{tooLarge, tooLarge, tooLarge}, sizes)
}

// A Bearer's token is taken for good until the server has refused one: from then on, uploads to it are announced.
func TestUploadIsAnnouncedWhereATokenWasRefused(t *testing.T) {
	good, refresh := "t1", func() string { return "t2" }
	var expect []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			expect = append(expect, r.Header.Get("Expect"))
		}
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(401)
			return
		}
		io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	client := &http.Client{Transport: &Transport{Base: srv.Client().Transport, Schemes: []Scheme{
		&Bearer{Source: &TokenSource{
			Initial:            &oauth2.Token{AccessToken: "t1"},
			MinRefreshInterval: time.Nanosecond,
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: refresh()}, nil
			},
		}},
	}}}
	require.Equal(t, 200, uploadOnce(t, client, srv.URL))
	good = "t2"
	resp, err := client.Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	good, refresh = "t3", func() string { return "t3" }
	require.Equal(t, 200, uploadOnce(t, client, srv.URL))
	require.Equal(t, []string{"", "100-continue", ""}, expect[:3], "the retry need not ask")
}

// Nor need a smaller request have been refused before: one upload is lost, and no other.
func TestUploadIsAnnouncedWhereOneWasLost(t *testing.T) {
	guard := &authtest.Bearer{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: &Transport{Base: srv.Client().Transport, Schemes: []Scheme{
		&Bearer{Source: &TokenSource{Initial: guard.Login(), MinRefreshInterval: -1, Fetch: RefreshGrant(guard.Config())}},
	}}}
	require.Equal(t, 200, uploadOnce(t, client, srv.URL+"/1"))
	guard.ExpireNow()
	require.Equal(t, 401, uploadOnce(t, client, srv.URL+"/2"))
	for i := range 3 {
		require.Equal(t, 200, uploadOnce(t, client, srv.URL+"/a"+strconv.Itoa(i)))
		guard.ExpireNow()
		require.Equal(t, 200, uploadOnce(t, client, srv.URL+"/b"+strconv.Itoa(i)))
	}
}

// A server that says nothing to an Expect lets an upload wait once: with credentials sent ahead, it is not asked again.
func TestServerThatIgnoresExpectIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			log = append(log, fmt.Sprintf("%t %s", req.Header["Authorization"] != nil, req.Header.Get("Expect")))
			resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
			if req.Body != nil {
				n, err := io.Copy(io.Discard, req.Body)
				require.NoError(t, err)
				require.EqualValues(t, tooLarge, n)
				req.Body.Close()
			}
			if req.Header["Authorization"] == nil {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="r", nonce="n", qop="auth"`}
			}
			return resp, nil
		})
		client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
		resp, err := client.Get("http://a.test/")
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		start := time.Now()
		for range 3 {
			require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
		}
		require.Equal(t, expectTimeout, time.Since(start))
		require.Equal(t, []string{"false ", "true ", "true 100-continue", "true ", "true "}, log)
	})
}

// A server that does not like our Expect is sent the credentials again without, and is not asked again. If it refuses them then, the body
// is lost, but not what it says: the next request carries an answer.
func TestExpectThatIsNotLikedBesideCredentials(t *testing.T) {
	nonce := "n1"
	var log []string
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		log = append(log, fmt.Sprintf("%t %s", strings.Contains(req.Header.Get("Authorization"), nonce), req.Header.Get("Expect")))
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.Header.Get("Expect") != "" {
			resp.StatusCode = 417
		} else {
			if req.Body != nil {
				io.Copy(io.Discard, req.Body)
			}
			if !strings.Contains(req.Header.Get("Authorization"), nonce) {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="r", nonce="` + nonce + `", qop="auth", stale=true`}
			}
		}
		if req.Body != nil {
			req.Body.Close()
		}
		return resp, nil
	})
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	get := func() int {
		resp, err := client.Get("http://a.test/")
		require.NoError(t, err)
		return resp.StatusCode
	}
	take := func() []string { defer func() { log = nil }(); return log }
	require.Equal(t, 200, get())
	require.Equal(t, []string{"false ", "true "}, take())

	nonce = "n2"
	body := io.NopCloser(io.LimitReader(zeros{}, tooLarge))
	req, err := http.NewRequest("PUT", "http://a.test/", body)
	require.NoError(t, err)
	req.ContentLength = tooLarge
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.Equal(t, 401, resp.StatusCode)
	said := rejectionOf(resp)
	require.EqualError(t, said, "authretry: http://a.test answered 401: the request was sent twice already, the second time without an Expect: 100-continue; "+
		"send it again yourself: it will carry credentials then", "GetBody would not have helped")
	require.Equal(t, ReasonBodyNotReplayable, said.Reason)
	require.Equal(t, []string{"Digest"}, said.Tried)
	require.False(t, said.Refreshed)
	require.Equal(t, []string{"false 100-continue", "false "}, take())

	require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
	require.Equal(t, []string{"true 100-continue", "true "}, take(), "the new nonce, and the same credentials without Expect")
	require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
	require.Equal(t, []string{"true "}, take())
}

// Servers that take large bodies are remembered within bounds, and by name only if that is not too long.
func TestServersThatTakeBodiesAreBounded(t *testing.T) {
	var u uploads
	takes := func(h *uploadHabits) { h.takes = true }
	for i := range 10 * maxUploads {
		o := origin{"https", fmt.Sprint("host", i), "443"}
		u.note(o, takes)
		require.True(t, u.of(o).takes)
		require.LessOrEqual(t, len(u.known), maxUploads)
	}
	long := origin{"https", strings.Repeat("h", maxHost+1), "443"}
	u.note(long, takes)
	require.False(t, u.of(long).takes)
}

// A frugalServer is a Base that answers before it takes anything of a body that was announced, unless it is content with the request.
type frugalServer struct {
	answer func(req *http.Request) (status int, challenge string)
	log    []string // what has come: path, user and Expect
}

func (s *frugalServer) RoundTrip(req *http.Request) (*http.Response, error) {
	user, _, _ := req.BasicAuth()
	s.log = append(s.log, strings.TrimSpace(fmt.Sprint(req.URL.Path, " ", user, " ", req.Header.Get("Expect"))))
	resp := &http.Response{Body: http.NoBody, Request: req, Header: http.Header{}}
	var challenge string
	if resp.StatusCode, challenge = s.answer(req); challenge != "" {
		resp.Header["Www-Authenticate"] = []string{challenge}
	}
	if req.Body != nil {
		if req.Header.Get("Expect") == "" || resp.StatusCode == 200 {
			if trace := httptrace.ContextClientTrace(req.Context()); trace != nil && trace.Got100Continue != nil {
				trace.Got100Continue()
			}
			io.Copy(io.Discard, req.Body)
		}
		req.Body.Close()
	}
	return resp, nil
}

// What an origin has taken without a challenge says nothing once it has challenged anything, whoever has asked there.
func TestOriginThatHasChallengedSomebody(t *testing.T) {
	base := &frugalServer{answer: func(req *http.Request) (int, string) {
		if _, _, ok := req.BasicAuth(); !ok && req.URL.Path == "/private" {
			return 401, `Basic realm="r"`
		}
		return 200, ""
	}}
	transport := &Transport{Base: base, Account: func(req *http.Request) string { return req.Header.Get("X-User") },
		Schemes: []Scheme{&Basic{Credentials: func(_ context.Context, r CredentialsRequest) (string, string, error) { return r.Account, "p", nil }}}}
	send := func(user, method, path string) int {
		req, err := http.NewRequest(method, "https://a.test"+path, nil)
		require.NoError(t, err)
		req.Header.Set("X-User", user)
		if method == "PUT" {
			req.Body, req.ContentLength = io.NopCloser(io.LimitReader(zeros{}, tooLarge)), tooLarge
		}
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		return resp.StatusCode
	}
	require.Equal(t, 200, send("alice", "PUT", "/public"))
	require.Equal(t, 200, send("alice", "PUT", "/public"))
	require.Equal(t, 200, send("alice", "GET", "/private"))
	require.Equal(t, 200, send("bob", "PUT", "/public"))
	require.Equal(t, 200, send("bob", "PUT", "/private"), "nothing of it was sent in vain")
	require.Equal(t, []string{"/public  100-continue", "/public", "/private", "/private alice", "/public  100-continue",
		"/private  100-continue", "/private bob"}, base.log)
}

// An answer that comes before anything of the body was asked for does not show that bodies are taken.
func TestAnswerWithoutTheBodyIsNotTaking(t *testing.T) {
	status := 503
	base := &frugalServer{answer: func(req *http.Request) (int, string) {
		if _, _, ok := req.BasicAuth(); !ok && status == 200 {
			return 401, `Basic realm="r"`
		}
		return status, ""
	}}
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}}
	require.Equal(t, 503, uploadOnce(t, client, "https://a.test/"))
	status = 200
	require.Equal(t, 200, uploadOnce(t, client, "https://a.test/"))
	require.Equal(t, []string{"/  100-continue", "/  100-continue", "/ u"}, base.log)
}

// A server that does not like Expect is not asked again, also if there are no credentials.
func TestExpectThatIsNotLikedIsNotRepeated(t *testing.T) {
	base := &frugalServer{answer: func(req *http.Request) (int, string) {
		if req.Header.Get("Expect") != "" {
			return 417, ""
		}
		return 200, ""
	}}
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}}
	for range 3 {
		require.Equal(t, 200, uploadOnce(t, client, "https://a.test/"))
	}
	require.Equal(t, []string{"/  100-continue", "/", "/", "/"}, base.log)
}

// A 417 that the caller gets has to prove what every response has to. Here the body has gone, unasked, by the time that it comes.
func TestExpectThatIsRefusedWithoutProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := authtest.NewPipeServer(&authtest.Digest{Username: "u", Password: "p"})
		defer srv.Close()
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Body == nil {
				return srv.Client().Transport.RoundTrip(req)
			}
			io.Copy(io.Discard, req.Body)
			req.Body.Close()
			return &http.Response{StatusCode: 417, Body: http.NoBody, Request: req, Header: http.Header{}}, nil
		})
		client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p", RequireMutualAuth: true}}}}
		resp, err := client.Get(srv.URL)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		req, err := http.NewRequest("PUT", srv.URL, io.NopCloser(io.LimitReader(zeros{}, tooLarge)))
		require.NoError(t, err)
		req.ContentLength = tooLarge
		_, err = client.Do(req)
		require.ErrorIs(t, err, ErrMutualAuth)
	})
}

// A Session learns from a 417, too, as it may bring the nonce to go on with. What it has against that response counts only where
// the caller gets it.
func TestExpectThatIsNotLikedBringsANonce(t *testing.T) {
	var nonces []string
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.Body != nil {
			defer req.Body.Close()
		}
		auth, _ := ParseChallenges(req.Header["Authorization"])
		switch {
		case len(auth) == 0:
			resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="r", nonce="n1", qop="auth"`}
			return resp, nil
		case req.Header.Get("Expect") != "":
			resp.StatusCode, resp.Header["Authentication-Info"] = 417, []string{`nextnonce="n2"`}
		}
		nonces = append(nonces, auth[0].Params.Get("nonce"))
		return resp, nil
	})
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	resp, err := client.Get("http://a.test/")
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
	require.Equal(t, []string{"n1", "n1", "n2"}, nonces)
}

// A request whose context ends while it is made ready to be sent without Expect fails as others do.
func TestContextEndsAfterAnExpectThatIsNotLiked(t *testing.T) {
	base := &frugalServer{answer: func(req *http.Request) (int, string) {
		switch {
		case req.Header.Get("Authorization") == "":
			return 401, "Slow"
		case req.Header.Get("Expect") != "":
			return 417, ""
		}
		return 200, ""
	}}
	session := &slowSession{}
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{session}}}
	resp, err := client.Get("https://a.test/")
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	ctx, cancel := context.WithCancelCause(t.Context())
	body := &tracked{Reader: io.LimitReader(zeros{}, tooLarge)}
	session.onThird = func() {
		cancel(errors.New("nobody needs it any more"))
		require.Eventually(t, func() bool { return body.closed.Load() > 0 }, 5*time.Second, time.Millisecond)
	}
	req, err := http.NewRequestWithContext(ctx, "PUT", "https://a.test/", body)
	require.NoError(t, err)
	req.ContentLength = tooLarge
	_, err = client.Do(req)
	require.ErrorContains(t, err, "nobody needs it any more")
}

// A slowSession is a Scheme, and its only Session, to which something happens when it authorizes a third request.
type slowSession struct {
	requests int
	onThird  func()
}

func (s *slowSession) Name() string { return "Slow" }
func (s *slowSession) Answer(context.Context, *Challenge, *http.Response) (Session, error) {
	return s, nil
}
func (s *slowSession) Exclusive() {}
func (s *slowSession) Authorize(req *http.Request) error {
	if s.requests++; s.requests == 3 {
		s.onThird()
	}
	req.Header.Set("Authorization", "Slow "+strconv.Itoa(s.requests))
	return nil
}

// A clock that is set back while a body waits for the server does not have it wait for as long.
func TestWaitForTheServerWhenTheClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{}), over: make(chan struct{})}
		g.asked.Store(time.Now().Add(time.Hour).UnixNano())
		begin := time.Now()
		require.True(t, g.wait(g.over))
		require.Equal(t, expectTimeout, time.Since(begin))
	})
}
