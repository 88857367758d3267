package authretry

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// answerIn returns d's session for a challenge of a URL, with what n knows of nonces.
func answerIn(t testing.TB, n *nonces, d *Digest, url string, params map[string]string) *digestSession {
	t.Helper()
	ctx := context.WithValue(t.Context(), noncesKey{}, n)
	session, err := d.Answer(ctx, digestChallenge(params), refusalOf(newDigestRequest(t, "GET", url)))
	require.NoError(t, err)
	return session.(*digestSession)
}

var countParam = regexp.MustCompile(`nonce="([^"]*)".* nc=([0-9a-f]{8}),`)

// nonceCount returns nonce and count of the session's next request, such as "a 1".
func nonceCount(t testing.TB, s Session) string {
	t.Helper()
	header := authorize(t, s)
	m := countParam.FindStringSubmatch(header)
	require.NotNil(t, m, header)
	nc, err := strconv.ParseUint(m[2], 16, 32)
	require.NoError(t, err)
	return fmt.Sprint(m[1], " ", nc)
}

func TestDigestNonceCountBelongsToTheNonce(t *testing.T) {
	const here, there = "https://example.com/a/b", "https://example.org/a/b"
	mufasa, scar := &Digest{Username: "Mufasa", Password: "Circle of Life"}, &Digest{Username: "Scar", Password: "Be prepared"}
	var n nonces
	one, two := answerIn(t, &n, mufasa, here, with()), answerIn(t, &n, mufasa, here, with())
	other := answerIn(t, &n, scar, "https://EXAMPLE.com:443/", with("realm", "other", "algorithm", "MD5"))
	for i, s := range []Session{one, two, one, other, two, other} {
		require.Equal(t, fmt.Sprint("n1 ", i+1), nonceCount(t, s))
	}
	require.Equal(t, "n1 1", nonceCount(t, answerIn(t, &n, mufasa, there, with())), "another origin")
	require.Equal(t, "n1 1", nonceCount(t, answerIn(t, &n, mufasa, "http://example.com/", with())), "another origin")
	require.Equal(t, "n2 1", nonceCount(t, answerIn(t, &n, mufasa, here, with("nonce", "n2"))), "another nonce")
	require.Equal(t, "n1 1", nonceCount(t, answerIn(t, &nonces{}, mufasa, here, with())), "another Transport")
	require.Equal(t, "n1 1", nonceCount(t, answer(t, mufasa, with())), "no Transport")
}

// A server may come back to a nonce: its count goes on, so that no request is the same as one before.
func TestDigestNextnonceThatWasInUseBefore(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	for _, algorithm := range []string{"MD5", "SHA-256-sess"} {
		for _, transport := range []bool{true, false} {
			session := answer(t, d, with("nonce", "a", "algorithm", algorithm))
			if transport {
				var n nonces
				session = answerIn(t, &n, d, "https://example.com/a/b", with("nonce", "a", "algorithm", algorithm))
			}
			var got []string
			for _, next := range []string{"b", "a", "a", "b", "c", "a"} {
				got = append(got, nonceCount(t, session))
				require.NoError(t, learn(session, newInfo(`nextnonce="`+next+`"`)))
			}
			require.Equal(t, []string{"a 1", "b 1", "a 2", "a 3", "b 2", "c 1"}, got)
			verifyAuthorization(t, authorize(t, session), "Mufasa", "Circle of Life", "GET", "/a/b", "")
		}
	}
}

// One nonce for everybody, for ever: each of its counts is used once, whoever asks.
func TestDigestStaticNonceIsCountedOnceForEverybody(t *testing.T) {
	const goroutines, requests = 64, 50
	var n nonces
	var mu sync.Mutex
	seen := make(map[string]bool)
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			d := &Digest{Username: fmt.Sprint("user", i%4), Password: "p"}
			session := answerIn(t, &n, d, "https://example.com/a/b", with())
			for j := range requests {
				count := nonceCount(t, session)
				if learn(session, newInfo(`nextnonce="n1"`)) != nil {
					t.Error("not learnt")
				}
				if j%10 == 9 {
					session = answerIn(t, &n, d, "https://example.com/a/b", with())
				}
				mu.Lock()
				if seen[count] {
					t.Errorf("%s was used twice", count)
				}
				seen[count] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, goroutines*requests)
	require.True(t, seen[fmt.Sprint("n1 ", goroutines*requests)], "none was left out")
}

// A server may compute A1 once for a nonce, with the cnonce that comes first (RFC 7616 §3.4.2).
func TestDigestSessSessionsOfOneNonceHaveOneCnonce(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	cnonces := make(map[string]string) // the server's, by nonce
	check := func(header string) {
		t.Helper()
		verifyAuthorization(t, header, "Mufasa", "Circle of Life", "GET", "/a/b", "")
		nonce, cnonce := countParam.FindStringSubmatch(header)[1], regexp.MustCompile(`cnonce="(\w+)"`).FindStringSubmatch(header)[1]
		if cnonces[nonce] == "" {
			cnonces[nonce] = cnonce
		}
		require.Equal(t, cnonces[nonce], cnonce, "A1 of nonce %s was computed with another cnonce", nonce)
	}
	for _, algorithm := range []string{"MD5-sess", "SHA-256-sess", "SHA-512-256-sess"} {
		clear(cnonces)
		var n nonces
		one := answerIn(t, &n, d, "https://example.com/a/b", with("algorithm", algorithm))
		two := answerIn(t, &n, d, "https://example.com/a/b", with("algorithm", algorithm))
		three := answerIn(t, &n, d, "https://example.com/a/b", with("algorithm", algorithm, "nonce", "n2"))
		for _, s := range []*digestSession{one, two, three, two, one} {
			check(authorize(t, s))
		}
		require.NoError(t, learn(one, newInfo(`nextnonce="n2"`)))
		require.NoError(t, learn(three, newInfo(`nextnonce="n1"`)))
		for _, s := range []*digestSession{one, two, three} {
			check(authorize(t, s))
		}
		require.Len(t, cnonces, 2)
		require.NotEqual(t, cnonces["n1"], cnonces["n2"])
	}
}

func TestDigestNoncesAreBounded(t *testing.T) { // not parallel: it measures the heap
	var n nonces
	inUse, idle := n.of(1, []byte("in use"), "c"), n.of(1, []byte("idle"), "c")
	n.next(idle, 1, []byte("idle"))
	long := strings.Repeat("n", maxDigestText)
	before := heap()
	for i := range 100_000 {
		nonce := fmt.Append(nil, i)
		if i%1000 == 0 {
			nonce = fmt.Append(nonce, long)
			n.next(inUse, 1, []byte("in use"))
		}
		n.of(uint64(i%3), nonce, "c")
		if len(n.young) > nonceGeneration || len(n.old) > nonceGeneration {
			t.Fatal(len(n.young), len(n.old))
		}
	}
	size := int64(heap()) - int64(before)
	t.Logf("%d bytes for %d nonces", size, len(n.young)+len(n.old))
	require.Less(t, size, int64(2<<20))

	require.Same(t, inUse, n.of(1, []byte("in use"), "c"))
	require.EqualValues(t, 101, n.next(inUse, 1, []byte("in use")))

	require.NotContains(t, slices.Collect(maps.Values(n.young)), idle)
	require.NotContains(t, slices.Collect(maps.Values(n.old)), idle)
	require.EqualValues(t, 2, n.next(idle, 1, []byte("idle")), "a session that has slept goes on with its count")
	require.Same(t, idle, n.of(1, []byte("idle"), "c"), "and so do the others from then on")
}

// The older generation is looked at, and what is found there becomes young again.
func TestDigestNoncesOfTheOlderGeneration(t *testing.T) {
	n := &nonces{}
	first := n.of(1, []byte("first"), "c")
	for i := range nonceGeneration - 1 {
		n.of(2, fmt.Append(nil, i), "c")
	}
	require.Empty(t, n.old)
	n.of(2, []byte("one more"), "c")
	require.Len(t, n.old, nonceGeneration)
	require.Len(t, n.young, 1)
	require.Same(t, first, n.of(1, []byte("first"), "c"))
	require.Len(t, n.young, 2)
}

// A nonce that was forgotten, and has been given to somebody again, is counted by what is known of it now.
func TestDigestNonceThatWasForgotten(t *testing.T) {
	var n nonces
	forgotten := n.of(1, []byte("n1"), "c")
	for i := range 2 * nonceGeneration {
		n.of(2, fmt.Append(nil, i), "c")
	}
	known := n.of(1, []byte("n1"), "c")
	require.NotSame(t, forgotten, known)
	n.next(forgotten, 1, []byte("n1"))
	require.Same(t, known, n.of(1, []byte("n1"), "c"))
	require.Equal(t, n.turn.Load(), forgotten.turn.Load(), "there is nothing more to do about it for a while")
}

func TestDigestNoncesAreSafeForConcurrentUse(t *testing.T) {
	n := &nonces{}
	shared := n.of(1, []byte("shared"), "c")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			mine := n.of(1, fmt.Append(nil, g), "c")
			for i := range 4000 {
				if n.next(mine, 1, fmt.Append(nil, g)) != uint32(i+1) {
					t.Error("somebody else has counted")
				}
				n.next(n.of(1, []byte("shared"), "c"), 1, []byte("shared"))
				n.of(uint64(i), fmt.Append(nil, g), "c")
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 8*4000, shared.count.Load())
}

// A server that gives everybody one nonce for ever, and wants each nonce count once: every call passes, whoever makes it,
// and so does one that finds the count where another has left it.
func TestStaticNonceForEverybody(t *testing.T) {
	const workers, calls = 32, 20
	for _, algorithm := range []string{"MD5", "SHA-256-sess"} {
		t.Run(algorithm, func(t *testing.T) {
			var mu sync.Mutex
			used := map[string]bool{}
			var hits atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hits.Add(1)
				header := r.Header.Get("Authorization")
				_, nc, _ := strings.Cut(header, "nc=")
				nc, _, _ = strings.Cut(nc, ",")
				mu.Lock()
				defer mu.Unlock()
				if header == "" || used[nc] {
					w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="static", qop="auth", algorithm=`+algorithm)
					w.WriteHeader(401)
					return
				}
				used[nc] = true
			}))
			defer srv.Close()
			base := &http.Transport{MaxIdleConnsPerHost: workers}
			defer base.CloseIdleConnections()
			client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
			var passed atomic.Int32
			var group sync.WaitGroup
			for range workers {
				group.Go(func() {
					for range calls {
						resp, err := client.Get(srv.URL)
						if err == nil {
							resp.Body.Close()
							if resp.StatusCode == 200 {
								passed.Add(1)
							}
						}
					}
				})
			}
			group.Wait()
			require.EqualValues(t, workers*calls, passed.Load())
			require.LessOrEqual(t, hits.Load(), int32(workers*calls+workers), "each worker is challenged once at the most")
		})
	}
}
