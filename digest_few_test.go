package authretry

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// A forgetfulServer keeps so many nonces, those that were used last, as Apache with AuthDigestNcCheck does, and forgets the
// others without a word of stale=true.
type forgetfulServer struct {
	keep   int
	strict bool // each nonce count must be the one after the last
	wipes  bool // it forgets all of them at once, when there is no room for another one
	stale  bool // it calls what it has forgotten stale, as Apache does where it has forgotten the client, too
	takes  time.Duration

	password string

	mu     sync.Mutex
	rng    *rand.Rand
	n      int
	clock  int
	nonces map[string]*nonceOfServer
	sent   atomic.Int32
}

type nonceOfServer struct{ used, nc int }

func (s *forgetfulServer) RoundTrip(req *http.Request) (*http.Response, error) {
	s.sent.Add(1)
	s.mu.Lock()
	way := s.takes/2 + time.Duration(s.rng.Int64N(int64(s.takes)))
	s.mu.Unlock()
	time.Sleep(way)
	s.mu.Lock()
	status, header := s.judge(req)
	s.mu.Unlock()
	time.Sleep(way / 2)
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: req}, nil
}

func (s *forgetfulServer) judge(req *http.Request) (status int, header http.Header) {
	s.clock++
	challenge := `Digest realm="x", qop="auth"`
	if challenges, err := ParseChallenges([]string{req.Header.Get("Authorization")}); err == nil && len(challenges) == 1 {
		p := challenges[0].Params
		known := s.nonces[p.Get("nonce")]
		var nc int
		fmt.Sscanf(p.Get("nc"), "%x", &nc)
		md5hex := func(text string) string { sum := md5.Sum([]byte(text)); return hex.EncodeToString(sum[:]) }
		right := md5hex(md5hex("u:x:"+s.password) + ":" + p.Get("nonce") + ":" + p.Get("nc") + ":" + p.Get("cnonce") + ":auth:" + md5hex("GET:"+p.Get("uri")))
		if known != nil && p.Get("response") == right && (nc == known.nc+1 || !s.strict && nc > known.nc) {
			known.nc, known.used = nc, s.clock
			return http.StatusOK, http.Header{}
		}
		if s.stale {
			challenge += ", stale=true"
		}
	}
	s.n++
	nonce := fmt.Sprint("n", s.n)
	if s.wipes && len(s.nonces) >= s.keep {
		clear(s.nonces)
	} else if len(s.nonces) >= s.keep {
		oldest := ""
		for n, k := range s.nonces {
			if oldest == "" || k.used < s.nonces[oldest].used {
				oldest = n
			}
		}
		delete(s.nonces, oldest)
	}
	s.nonces[nonce] = &nonceOfServer{used: s.clock}
	return http.StatusUnauthorized, http.Header{"Www-Authenticate": {fmt.Sprintf("%s, nonce=%q", challenge, nonce)}}
}

// run sends calls by workers at once, and returns how many of them passed, how often was sent for that, and how long it took.
func (s *forgetfulServer) run(t *testing.T, transport *Transport, workers, calls int) (passed, sent int, took time.Duration) {
	var all sync.WaitGroup
	var ok atomic.Int32
	s.sent.Store(0)
	start := time.Now()
	for range workers {
		all.Go(func() {
			for range calls {
				req := &http.Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "api.test", Path: "/"}, Header: http.Header{}}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Error(err)
				} else if resp.StatusCode == 200 {
					ok.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(ok.Load()), int(s.sent.Load()), time.Since(start)
}

func newForgetfulServer(keep int, seed uint64) (*forgetfulServer, *Transport) {
	s := &forgetfulServer{keep: keep, takes: 4 * time.Millisecond, password: "p", nonces: map[string]*nonceOfServer{}, rng: rand.New(rand.NewPCG(seed, 1))}
	return s, &Transport{Base: s, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
}

// The rule is decided by this simulation: 32 workers, 20 calls each, against servers that keep so many nonces. Where there are
// enough of them, nothing changes: 672 sends for 640 cold calls, and 640 from then on.
func TestFewerRequestsAtOnceWhereAServerKeepsFewNonces(t *testing.T) {
	type testCase struct{ keep, first, second int }
	for _, c := range thorough.Or([]testCase{{8, 600, 635}, {12, 600, 635}, {16, 600, 635}, {24, 600, 635}, {31, 600, 635}, {32, 640, 640}, {1000, 640, 640}},
		[]testCase{{8, 600, 635}, {16, 600, 635}, {32, 640, 640}}) {
		for kind, set := range map[string]func(s *forgetfulServer){
			"the oldest first": func(*forgetfulServer) {},
			"in order":         func(s *forgetfulServer) { s.strict = true },
			"all at once":      func(s *forgetfulServer) { s.wipes = true },
			"called stale":     func(s *forgetfulServer) { s.strict, s.wipes, s.stale = true, true, true },
		} {
			for seed := range thorough.Or[uint64](3, 1) {
				t.Run(fmt.Sprintf("%d nonces, %s, seed %d", c.keep, kind, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s, transport := newForgetfulServer(c.keep, seed)
						set(s)
						passed, sent, took := s.run(t, transport, 32, 20)
						t.Logf("first %d of 640, %d sends, %v", passed, sent, took)
						require.GreaterOrEqual(t, passed, c.first)
						require.LessOrEqual(t, sent, 640*13/10)
						if c.keep >= 32 {
							require.LessOrEqual(t, sent, 672)
							require.Less(t, took, 200*time.Millisecond, "of virtual time: nobody waits")
						}
						passed, sent, took = s.run(t, transport, 32, 20)
						t.Logf("then %d of 640, %d sends, %v", passed, sent, took)
						require.GreaterOrEqual(t, passed, c.second)
						require.LessOrEqual(t, sent, 640*13/10)
					})
				})
			}
		}
	}
}

// A server that has room again gets more requests at once, little by little.
func TestBoundGrowsWhereAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, transport := newForgetfulServer(12, 1)
		s.run(t, transport, 32, 20)
		bound := boundOf(transport)
		require.Positive(t, bound)
		s.keep = 1000
		s.run(t, transport, 32, thorough.Or(400, 200))
		require.Greater(t, boundOf(transport), 3*bound)
	})
}

// A wrong password is told from a crowd by nobody; but it costs no more than before, and nothing gets stuck.
func TestWrongPasswordInACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, transport := newForgetfulServer(1000, 1)
		transport.Schemes = []Scheme{&Digest{Username: "u", Password: "wrong"}}
		passed, sent, took := s.run(t, transport, 32, 20)
		require.Zero(t, passed)
		require.LessOrEqual(t, sent, 2*640)
		require.Less(t, took, 20*(maxCrowdWait+100*time.Millisecond))
	})
}

// A server that starts anew, and says so by stale=true, is none that keeps few nonces, whatever the password is.
func TestRestartedServerIsNoCrowd(t *testing.T) {
	for _, password := range []string{"p", ""} {
		synctest.Test(t, func(t *testing.T) {
			s, transport := newForgetfulServer(1000, 1)
			s.stale, s.password = true, password
			transport.Schemes = []Scheme{&Digest{Username: "u", Password: password}}
			s.run(t, transport, 32, 5)
			clear(s.nonces)
			passed, _, _ := s.run(t, transport, 32, 5)
			require.Equal(t, 32*5, passed)
			require.Zero(t, boundOf(transport))
		})
	}
}

// Whoever waits for others goes on when its context ends.
func TestWaitInACrowdEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, transport := newForgetfulServer(12, 1)
		s.run(t, transport, 32, 20)
		known := transport.auth.spaces.of(spacesKey{"", originOf(&url.URL{Scheme: "https", Host: "api.test"})})
		known.mu.Lock()
		known.here += known.bound // as if so many were out, and did not come back
		known.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		req := httptest.NewRequest("GET", "https://api.test/", nil).WithContext(ctx)
		_, _ = transport.RoundTrip(req)
		require.Less(t, time.Since(start), 100*time.Millisecond)
		start = time.Now()
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)
		require.Less(t, time.Since(start), 200*time.Millisecond)
		known.mu.Lock()
		defer known.mu.Unlock()
		require.Nil(t, known.waiting)
		require.Equal(t, known.bound, known.here)
	})
}

func boundOf(transport *Transport) int32 {
	known := transport.auth.spaces.of(spacesKey{"", originOf(&url.URL{Scheme: "https", Host: "api.test"})})
	known.mu.Lock()
	defer known.mu.Unlock()
	return known.bound
}
