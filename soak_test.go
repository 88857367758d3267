package authretry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

var (
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak puts the Transport under load; 0: as long as AUTHRETRY_TESTS says")
	soakSeed     = flag.Uint64("soak.seed", 0, "of TestSoak's choices; 0: a new one")
)

// soakEcho answers with what has arrived: an answer that belongs to another request is found out.
func soakEcho(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	line := fmt.Sprintf("%s %s %d %x", r.Method, r.URL.RequestURI(), n, sum.Sum(nil))
	w.Header().Set("Soak", line)
	io.WriteString(w, line)
}

// A soaker sends requests at random, and checks what comes back.
type soaker struct {
	client  *http.Client
	servers []*authtest.Server
	stop    time.Time

	id       atomic.Int64
	statuses [600]atomic.Int64
	errors   atomic.Int64
	open     atomic.Int64 // bodies that have not been closed
	problems chan string
}

// TestSoak has many goroutines send requests of all kinds to servers of all kinds, some of which fail now and then,
// whose nonces and tokens expire all the time. Run it for longer by -soak.duration, and again by -soak.seed.
func TestSoak(t *testing.T) { // not parallel: it measures the heap
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	duration := cmp.Or(*soakDuration, thorough.Or(time.Second, 200*time.Millisecond))
	t.Logf("go test -run Soak -soak.seed %d -soak.duration %v", seed, duration)
	before := runtime.NumGoroutine()

	s := &soaker{problems: make(chan string, 1)}
	base := &http.Transport{MaxIdleConnsPerHost: 64}
	through := func(scheme Scheme) http.RoundTripper {
		return &Transport{Base: base, Schemes: []Scheme{scheme}}
	}
	all := through(&Digest{Username: "u", Password: "p"}).(*Transport)
	all.Schemes = append(all.Schemes, &Basic{Username: "u", Password: "p"})
	transports := map[string]http.RoundTripper{
		"/key": through(&APIKey{Header: "X-API-Key", Key: "k"}),
	}
	s.client = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		first, _, _ := strings.Cut(req.URL.Path[1:], "/")
		if transport, ok := transports["/"+first]; ok {
			return transport.RoundTrip(req)
		}
		return all.RoundTrip(req)
	})}

	// What is left after a first round is what there is to be after any number. Each round has servers of its own, because
	// those of authtest remember tens of thousands of nonces and tokens.
	var left [2]uint64
	for round := range left {
		source := &TokenSource{MinRefreshInterval: -1}
		transports["/bearer"] = through(&Bearer{Source: source})
		s.round(t, base, source, seed+uint64(1000*round), duration*time.Duration(1+2*round)/4)
		left[round] = heap()
	}

	counts := map[int]int64{}
	for status := range s.statuses {
		if n := s.statuses[status].Load(); n > 0 {
			counts[status] = n
		}
	}
	t.Logf("%d requests: %v, %d errors; %d KiB are left after the first round, %d at the end", s.id.Load(), counts, s.errors.Load(), left[0]>>10, left[1]>>10)
	require.Greater(t, 2*counts[200], s.id.Load(), "most go well")
	require.Zero(t, counts[403]+counts[400]+counts[500])
	require.Less(t, int64(left[1])-int64(left[0]), int64(2<<20))
	require.Zero(t, s.open.Load(), "every body is closed")
	requireNoMoreGoroutines(t, before)
}

// round has new servers, and many goroutines that send requests to them for some time.
func (s *soaker) round(t *testing.T, base *http.Transport, source *TokenSource, seed uint64, duration time.Duration) {
	tokens := &authtest.Bearer{TokenLifetime: 500 * time.Millisecond}
	digests := []*authtest.Digest{
		{Username: "u", Password: "p", NonceUses: 7, NextNonce: authtest.NextNonceNearEnd},
		{Username: "u", Password: "p", NonceLifetime: 300 * time.Millisecond, Algorithms: []string{"SHA-256", "MD5"}, QOP: "auth,auth-int"},
		{Username: "u", Password: "p", Algorithms: []string{"MD5-sess"}, StaleOnNC: true, NextNonce: authtest.NextNonceAlways},
		{Username: "u", Password: "p", QOP: "auth-int"},
	}
	for i, start := range []func(...authtest.Guard) *authtest.Server{authtest.NewServer, authtest.NewHTTP2Server} {
		srv := start()
		srv.Keep(1)
		srv.Handle("/", http.HandlerFunc(soakEcho))
		srv.Protect("/basic", &authtest.Basic{Username: "u", Password: "p"})
		srv.Protect("/key", &authtest.APIKey{Header: "X-API-Key", Key: "k"})
		srv.Protect("/digest/a", digests[2*i])
		srv.Protect("/digest/b", digests[2*i+1])
		srv.Protect("/any", &authtest.Digest{Username: "u", Password: "p", NonceUses: 3}, &authtest.Basic{Username: "u", Password: "p"})
		if i == 0 {
			srv.Protect("/bearer", tokens)
			source.Initial, source.Fetch = tokens.Login(), RefreshGrant(tokens.Config())
		} else {
			base.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			base.ForceAttemptHTTP2 = true
		}
		s.servers = append(s.servers, srv)
	}

	s.stop = time.Now().Add(duration)
	var workers sync.WaitGroup
	for i := range thorough.Or(200, 30) {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for time.Now().Before(s.stop) {
				if problem := s.request(t.Context(), random); problem != "" {
					select {
					case s.problems <- problem:
					default:
					}
					return
				}
			}
		})
	}
	workers.Wait()
	select {
	case problem := <-s.problems:
		t.Fatal(problem)
	default:
	}
	require.Zero(t, tokens.Reuses(), "no refresh token is used twice")
	for _, d := range digests {
		for _, e := range d.NonceErrors() {
			require.Greater(t, e.Got, e.Want, "a nonce count may be lost with its request, but is never repeated")
		}
	}
	base.CloseIdleConnections()
	for _, srv := range s.servers {
		srv.Close()
	}
	s.servers = nil
	http.DefaultTransport.(*http.Transport).CloseIdleConnections() // of the token endpoint
}

// A soakBody is a body that must be closed, and once.
type soakBody struct {
	io.Reader
	s      *soaker
	closed atomic.Int32
}

func (s *soaker) body(content []byte) *soakBody {
	s.open.Add(1)
	return &soakBody{Reader: bytes.NewReader(content), s: s}
}

func (b *soakBody) Close() error {
	if b.closed.Add(1) == 1 {
		b.s.open.Add(-1)
	}
	return nil
}

// request sends one request, and returns what is wrong with the outcome.
func (s *soaker) request(ctx context.Context, random *rand.Rand) string {
	srv := s.servers[random.IntN(len(s.servers))]
	paths := []string{"/basic", "/key", "/digest/a", "/digest/b", "/any", "/bearer", "/open"}
	if srv != s.servers[0] {
		paths[5] = "/open" // one server has the tokens
	}
	path := paths[random.IntN(len(paths))]
	if random.IntN(30) == 0 {
		srv.Inject(path, 1, []authtest.Fault{
			authtest.Reply(503, nil, "later"), authtest.Abort(), authtest.Refuse(), authtest.CloseUnread(), authtest.JoinChallenges(),
			authtest.Delay(time.Duration(random.IntN(5)) * time.Millisecond),
		}[random.IntN(6)])
	}
	if random.IntN(50) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(random.IntN(2000))*time.Microsecond)
		defer cancel()
	}

	target := fmt.Sprintf("%s/%d?x=%d", path, random.IntN(100), s.id.Add(1))
	method := []string{"GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"}[random.IntN(6)]
	req, err := http.NewRequestWithContext(ctx, method, srv.URL+target, nil)
	if err != nil {
		return err.Error()
	}
	var content []byte
	if random.IntN(6) > 2 && method != "GET" && method != "HEAD" {
		content = bytes.Repeat([]byte{byte(random.Uint32())}, 1+random.IntN(64<<10))
		req.Body, req.ContentLength = s.body(content), int64(len(content))
		switch random.IntN(3) {
		case 0:
			req.GetBody = func() (io.ReadCloser, error) { return s.body(content), nil }
		case 1:
			req.ContentLength = -1
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.errors.Add(1)
		return ""
	}
	defer resp.Body.Close()
	s.statuses[resp.StatusCode].Add(1)
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		return ""
	}
	want := fmt.Sprintf("%s %s %d %x", method, target, len(content), sha256.Sum256(content))
	if method == "HEAD" {
		got = []byte(resp.Header.Get("Soak"))
	}
	if string(got) != want {
		return fmt.Sprintf("the request was\n%s\nand the answer is\n%s", want, got)
	}
	return ""
}
