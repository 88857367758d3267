package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A handshake is a Scheme that authenticates connections, as NTLM does: it proves itself once on a connection, by a
// request of its own, and whatever comes on that connection is let in without another word.
type handshake struct {
	exclusive bool
	carried   atomic.Int32
	idle      atomic.Int32 // how often CloseIdleConnections was called
	err       error
}

func (h *handshake) Name() string { return "Handshake" }
func (h *handshake) Answer(_ context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	if c == nil {
		return nil, ErrUnsupportedChallenge
	}
	s := &handshaken{h: h, url: refusal.Request.URL.String()}
	if h.exclusive {
		return &exclusiveHandshaken{s}, nil
	}
	return s, nil
}

type handshaken struct {
	h   *handshake
	url string
}

func (*handshaken) Authorize(*http.Request) error { return nil }
func (s *handshaken) Carry(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	s.h.carried.Add(1)
	if s.h.err != nil {
		return nil, s.h.err
	}
	own := base.(*http.Transport).Clone()
	own.MaxConnsPerHost = 1
	req, err := http.NewRequestWithContext(ctx, "GET", s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Handshake "+secret)
	resp, err := own.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return &closingIdle{own, &s.h.idle}, nil
}

type exclusiveHandshaken struct{ *handshaken }

func (*exclusiveHandshaken) Exclusive() {}

type closingIdle struct {
	*http.Transport
	n *atomic.Int32
}

func (c *closingIdle) CloseIdleConnections() { c.n.Add(1); c.Transport.CloseIdleConnections() }

type connKey struct{}

// A connectionServer lets in what comes on a connection that has proved itself.
type connectionServer struct {
	*httptest.Server
	mu     sync.Mutex
	proved map[net.Conn]bool
	bodies int // of requests that were let in, or not
	open   atomic.Int32

	accepted atomic.Int32 // connections, all in all
}

func newConnectionServer(t *testing.T) *connectionServer {
	s := &connectionServer{proved: map[net.Conn]bool{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(net.Conn)
		b, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(b) > 0 {
			s.bodies++
		}
		if r.Header.Get("Authorization") == "Handshake "+secret {
			s.proved[c] = true
		}
		if !s.proved[c] {
			w.Header().Set("WWW-Authenticate", "Handshake")
			w.WriteHeader(401)
		}
	}))
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.open.Add(1)
			s.accepted.Add(1)
		case http.StateClosed:
			s.open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestCarrierKeepsWhatItsConnectionHasProved(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		t.Run(fmt.Sprint(exclusive), func(t *testing.T) {
			srv := newConnectionServer(t)
			h := &handshake{exclusive: exclusive}
			base := &http.Transport{}
			transport := &Transport{Base: base, Schemes: []Scheme{h}, AllowPlaintext: true}
			client := &http.Client{Transport: transport}
			for range 5 {
				resp, err := client.Post(srv.URL, "text/plain", strings.NewReader("body"))
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 200, resp.StatusCode)
			}
			require.EqualValues(t, 1, h.carried.Load())
			require.Equal(t, 6, srv.bodies, "one of them was refused first")

			var workers sync.WaitGroup
			for range 16 {
				workers.Go(func() {
					for range 10 {
						resp, err := client.Post(srv.URL, "text/plain", strings.NewReader("body"))
						if err != nil {
							t.Error(err)
							return
						}
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						if resp.StatusCode != 200 {
							t.Error(resp.Status)
						}
					}
				})
			}
			workers.Wait()
			require.LessOrEqual(t, h.carried.Load(), map[bool]int32{false: 1, true: 16}[exclusive])

			transport.CloseIdleConnections()
			require.Eventually(t, func() bool { return srv.open.Load() == 0 }, 30*time.Second, time.Millisecond)
			require.Positive(t, h.idle.Load())

			// A connection that was closed has proved nothing to the next one: there is another handshake.
			resp, err := client.Post(srv.URL, "text/plain", strings.NewReader("body"))
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			transport.CloseIdleConnections()
			require.Eventually(t, func() bool { return srv.open.Load() == 0 }, 30*time.Second, time.Millisecond)
		})
	}
}

func TestCarrierNeedsABaseThatItCanClone(t *testing.T) {
	srv := newConnectionServer(t)
	for name, c := range map[string]struct {
		base http.RoundTripper
		err  error
		text string
	}{
		"unknown Base": {roundTripFunc(http.DefaultTransport.RoundTrip), nil, "Handshake authenticates connections, and got none: Transport.Base must be an *http.Transport or a *ProxyTransport"},
		"fails":        {&http.Transport{}, errors.New("the domain controller is away"), "the domain controller is away"},
	} {
		r := rejectionFor(t, &Transport{Base: c.base, Schemes: []Scheme{&handshake{err: c.err}}, AllowPlaintext: true}, srv.URL)
		require.Equal(t, ReasonNoCredentials, r.Reason, name)
		require.ErrorContains(t, r, c.text)
		require.Equal(t, 401, r.Status)
	}
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	_, err := proxyClient(t, via(proxy), &puppet{name: "Basic", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		return &handshaken{h: &handshake{}}, nil
	}}).Get("http://origin.test/")
	require.ErrorContains(t, err, "a ProxyTransport has no connections to give away")
}

// Whatever becomes of a Session, what was made to carry its requests is closed in the end.
func TestEveryCarrierIsClosedInTheEnd(t *testing.T) {
	long := strings.Repeat("r", 2_000)
	for name, c := range map[string]struct {
		exclusive bool
		starts    bool
		refuses   bool
		realm     string
		learn     error
		elsewhere bool // each request is to another directory
	}{
		"refused for ever":            {refuses: true},
		"refused for ever, exclusive": {refuses: true, exclusive: true},
		"in the place of another one": {exclusive: true, elsewhere: true},
		"a Starter's":                 {starts: true},
		"a realm that is too long":    {realm: long},
		"fails to learn":              {learn: errors.New("no")},
	} {
		t.Run(name, func(t *testing.T) {
			var open atomic.Int32
			base := &http.Transport{}
			session := func() Session {
				s := &countedCarrier{open: &open, err: c.learn}
				if c.exclusive {
					return &exclusiveCounted{s}
				}
				return s
			}
			scheme := &puppet{name: "Counted", answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return session(), nil }}
			if c.starts {
				scheme.start = func(context.Context, *http.Request) (Session, error) { return session(), nil }
			}
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Counted") == "" || c.refuses {
					w.Header().Set("WWW-Authenticate", `Counted realm="`+c.realm+`"`)
					w.WriteHeader(401)
				}
			}))
			defer srv.Close()
			transport := &Transport{Base: base, Schemes: []Scheme{scheme}, AllowPlaintext: true}
			for i := range 10 {
				url := srv.URL
				if c.elsewhere {
					url = fmt.Sprintf("%s/%d/x", srv.URL, i)
				}
				resp, err := (&http.Client{Transport: transport}).Get(url)
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			transport.CloseIdleConnections()
			require.Zero(t, open.Load())
		})
	}
}

// So is what Sessions had that the origin seems to have forgotten, as it refuses in a crowd.
func TestCarriersOfForgottenSessionsAreClosed(t *testing.T) {
	var open atomic.Int32
	var at sync.WaitGroup
	at.Add(5)
	held, release := make(chan bool), make(chan bool)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Counted") == "" || r.URL.Path == "/refused" {
			w.Header().Set("WWW-Authenticate", "Counted")
			w.WriteHeader(401)
			return
		}
		switch r.URL.Path {
		case "/together":
			at.Done()
			at.Wait()
		case "/held":
			held <- true
			<-release
		}
	}))
	defer srv.Close()
	scheme := &puppet{name: "Counted", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		return &exclusiveCounted{&countedCarrier{open: &open}}, nil
	}}
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{scheme}, AllowPlaintext: true}
	get := func(path string, status int) {
		resp, err := (&http.Client{Transport: transport}).Get(srv.URL + path)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Error(resp.Status)
		}
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { get("/together", 200) })
	}
	all.Wait()
	require.EqualValues(t, 5, open.Load())
	all.Go(func() { get("/held", 200) })
	<-held
	get("/refused", 401)
	release <- true
	all.Wait()
	transport.CloseIdleConnections()
	require.Zero(t, open.Load())
}

// A Covers that panics as a request ends does not keep what that went by open.
func TestCarrierIsLeftIfCoversPanics(t *testing.T) {
	var open atomic.Int32
	panics := atomic.Bool{}
	var k *originSpaces
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Counted") == "" {
			w.Header().Set("WWW-Authenticate", "Counted")
			w.WriteHeader(401)
		} else if r.URL.Path == "/folder/panics" {
			panics.Store(true)
			k.mu.Lock()
			k.bound, k.waiting = 2, &[]*waiter{{r.URL, make(chan lease, 1)}}
			k.mu.Unlock()
		}
	}))
	defer srv.Close()
	transport := &Transport{Base: &http.Transport{}, AllowPlaintext: true, Schemes: []Scheme{
		&puppet{name: "Counted", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
			return &coveringCounted{exclusiveCounted{&countedCarrier{open: &open}}, panicsOnce{&panics}}, nil
		}}}}
	get := func(path string) error {
		resp, err := (&http.Client{Transport: transport}).Get(srv.URL + path)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.NoError(t, get("/folder/"))
	require.EqualValues(t, 1, open.Load())
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	k = transport.auth.spaces.of(spacesKey{origin: originOf(u)})
	require.ErrorContains(t, get("/folder/panics"), "panic")
	require.EqualValues(t, 0, k.here)
	transport.Forget("")
	require.Zero(t, open.Load())
	transport.CloseIdleConnections()
}

type coveringCounted struct {
	exclusiveCounted
	panicsOnce
}

func (c *coveringCounted) Authorize(req *http.Request) error {
	return c.exclusiveCounted.Authorize(req)
}
func (*coveringCounted) Exclusive() {}

// What requests go by that are still under way is closed after the last of them, whoever forgets the Session meanwhile.
func TestCarrierIsNotClosedUnderItsRequests(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Counted") == "" {
			w.Header().Set("WWW-Authenticate", "Counted")
			w.WriteHeader(401)
		}
	}))
	defer srv.Close()
	var open atomic.Int32
	held, release := make(chan bool), make(chan bool)
	scheme := &puppet{name: "Counted", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		return &countedCarrier{open: &open, via: func(req *http.Request) {
			if req.URL.Path == "/held" {
				held <- true
				<-release
			}
		}}, nil
	}}
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{scheme}, Account: func(*http.Request) string { return "a" }}
	client := &http.Client{Transport: transport}
	status := func(path string) int {
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			t.Error(err)
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, 200, status("/"))
	var requests sync.WaitGroup
	for range 2 {
		requests.Go(func() {
			if got := status("/held"); got != 200 {
				t.Error(got)
			}
		})
		<-held
	}
	transport.Forget("a")
	require.EqualValues(t, 1, open.Load(), "two requests go by it")
	release <- true
	require.Equal(t, 200, status("/"))
	require.EqualValues(t, 2, open.Load(), "one goes by it, and there is a new one")
	release <- true
	requests.Wait()
	require.EqualValues(t, 1, open.Load(), "the new one")
	transport.Forget("a")
	require.Zero(t, open.Load())
}

// The connections of the Transport's Base are everybody's, also if a Carrier says that its requests go by Base.
func TestCarrierDoesNotCloseBase(t *testing.T) {
	srv := newConnectionServer(t)
	scheme := &puppet{name: "Handshake", answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return goesByBase{}, nil }}
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{scheme}, Account: func(*http.Request) string { return "a" }, AllowPlaintext: true}
	for range 3 {
		resp, err := (&http.Client{Transport: transport}).Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		transport.Forget("a")
	}
	require.EqualValues(t, 1, srv.accepted.Load(), "connections")
	transport.CloseIdleConnections()
	require.Eventually(t, func() bool { return srv.open.Load() == 0 }, 30*time.Second, time.Millisecond)
}

type goesByBase struct{}

func (goesByBase) Authorize(req *http.Request) error {
	req.Header.Set("Authorization", "Handshake "+secret)
	return nil
}
func (goesByBase) Carry(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	return base, nil
}

// A countedCarrier counts those that nobody has closed yet.
type countedCarrier struct {
	open *atomic.Int32
	err  error
	via  func(*http.Request) // sees each request; nil: nothing
}

func (s *countedCarrier) Authorize(req *http.Request) error {
	req.Header.Set("X-Counted", "1")
	return nil
}
func (s *countedCarrier) Learn(*http.Response, bool) (bool, error) { return false, s.err }
func (s *countedCarrier) Carry(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	s.open.Add(1)
	return &closedOnce{Transport: base.(*http.Transport).Clone(), open: s.open, via: s.via}, nil
}

type exclusiveCounted struct{ *countedCarrier }

func (exclusiveCounted) Exclusive() {}

type closedOnce struct {
	*http.Transport
	open *atomic.Int32
	once sync.Once
	via  func(*http.Request)
}

func (c *closedOnce) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.via != nil {
		c.via(req)
	}
	return c.Transport.RoundTrip(req)
}

func (c *closedOnce) CloseIdleConnections() {
	c.once.Do(func() { c.open.Add(-1) })
	c.Transport.CloseIdleConnections()
}

// A Carrier that returns nothing is an error, and its request is not sent.
func TestCarrierThatCarriesNothing(t *testing.T) {
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{&puppet{name: "Nothing",
		start: func(context.Context, *http.Request) (Session, error) { return carriesNothing{}, nil }}}}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
	require.ErrorContains(t, err, "neither a RoundTripper nor an error was returned")
}

type carriesNothing struct{}

func (carriesNothing) Authorize(*http.Request) error { return nil }
func (carriesNothing) Carry(context.Context, http.RoundTripper) (http.RoundTripper, error) {
	return nil, nil
}
