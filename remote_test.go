package authretry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry/authtest"
)

// asksWhere is a Scheme that notes from where refusals come, and has no answer to them.
type asksWhere struct {
	wants bool
	from  []string
}

func (*asksWhere) Name() string            { return "Basic" }
func (a *asksWhere) WantsRemoteAddr() bool { return a.wants }
func (a *asksWhere) Answer(_ context.Context, _ *Challenge, refusal *http.Response) (Session, error) {
	a.from = append(a.from, refusal.Request.RemoteAddr)
	return nil, ErrUnsupportedChallenge
}

func TestSchemeSeesFromWhereARefusalComes(t *testing.T) {
	plain, secure := authtest.NewServer(&authtest.Basic{Username: "u"}), authtest.NewHTTP2Server(&authtest.Basic{Username: "u"})
	defer plain.Close()
	defer secure.Close()
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}})
	defer proxy.Close()
	to, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	proxied := &http.Transport{Proxy: http.ProxyURL(to)}
	defer proxied.CloseIdleConnections()
	mute := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return plain.Client().Transport.RoundTrip(req.WithContext(context.Background()))
	})
	const callers = "192.0.2.9:99" // as a request has it that a server has got, and sends on
	for name, c := range map[string]struct {
		base  http.RoundTripper
		url   string
		wants bool
		want  string
	}{
		"HTTP/1.1":          {plain.Client().Transport, plain.URL, true, strings.TrimPrefix(plain.URL, "http://")},
		"HTTP/2":            {secure.Client().Transport, secure.URL, true, strings.TrimPrefix(secure.URL, "https://")},
		"a proxy":           {proxied, plain.URL, true, ""},
		"a Base that hides": {mute, plain.URL, true, ""},
		"nobody asks":       {plain.Client().Transport, plain.URL, false, callers},
	} {
		t.Run(name, func(t *testing.T) {
			s := &asksWhere{wants: c.wants}
			transport := New(s)
			transport.Base, transport.AllowPlaintext = c.base, true
			for range 2 { // by a new connection, and by one from the pool
				req, err := http.NewRequest("GET", c.url, nil)
				require.NoError(t, err)
				req.RemoteAddr = callers
				ctx := req.Context()
				resp, err := transport.RoundTrip(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 401, resp.StatusCode)
				require.Equal(t, callers, req.RemoteAddr)
				require.Equal(t, ctx, req.Context(), "the caller's request has changed")
			}
			require.Equal(t, []string{c.want, c.want}, s.from)
		})
	}
}

// A lateScheme goes on in a goroutine of its own after it has given up or answered.
type lateScheme struct {
	cancel context.CancelFunc // nil: it answers
	all    sync.WaitGroup
	wants  bool
}

func (*lateScheme) Name() string { return "Bearer" }

func (s *lateScheme) Answer(ctx context.Context, _ *Challenge, _ *http.Response) (Session, error) {
	s.all.Go(func() {
		if s.cancel != nil {
			<-ctx.Done()
			refusalIn(ctx) // as a TokenSource asks that it calls
			return
		}
		for ctx.Err() == nil {
			refusalIn(ctx)
		}
	})
	if s.cancel == nil {
		return word{text: "x"}, nil
	}
	s.cancel()
	return nil, ctx.Err()
}

func (s *lateScheme) WantsRemoteAddr() bool { return s.wants }

// What a Scheme's own goroutine finds out by its context is not what the exchange goes on writing: -race would tell.
func TestSchemeThatAsksTooLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &lateScheme{cancel: cancel}
	transport := &Transport{Schemes: []Scheme{s}, OnEvent: func(context.Context, Event) {}, Base: answering(`Bearer realm="x"`)}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil).WithContext(ctx))
	require.ErrorIs(t, err, context.Canceled)
	s.all.Wait()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="x"`)
		w.WriteHeader(401)
	}))
	defer server.Close()
	for _, wants := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &lateScheme{wants: wants}
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		require.NoError(t, err)
		resp, err := New(s).RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		req.URL.Path = "/another" // the caller may do that by now
		cancel()
		s.all.Wait()
	}
}

// A TokenSource that is told of a refusal which no Scheme answers learns where it came from, too.
func TestRefusalThatNobodyAnswersComesFromSomewhere(t *testing.T) {
	asked := make(chan TokenRequest, 1)
	source := &TokenSource{Initial: &oauth2.Token{AccessToken: "a"}, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		asked <- r
		return &oauth2.Token{AccessToken: "b"}, nil
	}}
	transport := New(tellsOf403{&Bearer{Source: source}, source})
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 403, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, Body: http.NoBody, Request: req}, nil
	})
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/door?key=x", nil))
	require.NoError(t, err)
	r := <-asked
	require.NotNil(t, r.Challenge)
	require.Equal(t, "https://api.test/door", r.URL)
}

// tellsOf403 is a Scheme that tells its source of a 403 which it does not answer.
type tellsOf403 struct {
	*Bearer
	source *TokenSource
}

func (s tellsOf403) Start(ctx context.Context, req *http.Request) (Session, error) {
	session, err := s.Bearer.Start(ctx, req)
	return tellingSession{session, s.source}, err
}

type tellingSession struct {
	Session
	source *TokenSource
}

func (s tellingSession) Learn(resp *http.Response, _ bool) (bool, error) {
	challenges, err := ParseChallenges(resp.Header["Www-Authenticate"])
	if err == nil && resp.StatusCode == 403 {
		s.source.Refused(resp.Request.Context(), &oauth2.Token{AccessToken: "a"}, &challenges[0])
	}
	return true, err
}
