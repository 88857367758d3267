package authretry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"unsafe"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// forUser is a request on behalf of a user, whom accountOfUser finds.
func forUser(user string, req *http.Request) *http.Request {
	return req.WithContext(context.WithValue(req.Context(), userKey{}, user))
}

type userKey struct{}

func accountOfUser(req *http.Request) string {
	user, _ := req.Context().Value(userKey{}).(string)
	return user
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a Transport remembers of an account with one origin is less than 1 KiB, besides the token. So the bounds, which are
// made smaller here, let it remember some 100,000. Those who come once take no more room than that. The same goes for
// origins.
func TestWhatIsRememberedIsBounded(t *testing.T) { // not parallel: it measures the heap
	many := thorough.Or(3_000, 880) // not just above what a map grows at, which is 896 times a power of two
	limit := many * 700
	require.Greater(t, maxRemembered, 100_000*600)
	require.Greater(t, maxSources, 100_000*(sizeOfSource+32))
	basic := func() Scheme {
		return &Basic{Credentials: func(_ context.Context, r CredentialsRequest) (string, string, error) {
			return "user-" + r.Account, "password", nil
		}}
	}
	bearer := func() Scheme {
		return &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
			return &TokenSource{Initial: &oauth2.Token{AccessToken: account}}, nil
		}}
	}
	digest := func() Scheme { return &Digest{Username: "u", Password: "p"} }
	for name, c := range map[string]struct {
		challenge string
		scheme    Scheme
		account   bool
		fits      bool // all of them
	}{
		"Basic, accounts":  {`Basic realm="api.example.com"`, basic(), true, true},
		"Bearer, accounts": {`Bearer`, bearer(), true, true},
		"Digest, accounts": {`Digest realm="api.example.com", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", qop="auth"`, digest(), true, false},
		"Basic, origins":   {`Basic realm="x"`, basic(), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			transport := &Transport{Base: answering(c.challenge), Schemes: []Scheme{c.scheme}}
			if c.account {
				transport.Account = accountOfUser
			}
			require.NoError(t, transport.init())
			transport.auth.spaces.limit = int64(limit)
			if b, ok := c.scheme.(*Bearer); ok {
				b.accounts.limit = limit
			}
			send := func(i int) {
				url, user := "https://api.example.com/v1/things?with=a&query=that&is=long", fmt.Sprintf("user-%d@example.com", i)
				if !c.account {
					url = fmt.Sprintf("https://host%d.example.com/v1/things", i)
				}
				resp, err := transport.RoundTrip(forUser(user, httptest.NewRequest("GET", url, nil)))
				if err != nil || resp.StatusCode != 200 {
					t.Fatal(err, resp)
				}
			}
			before := heapInUse()
			for i := range many {
				send(i)
			}
			const once = 32 << 10 // of the runtime, of the Transport, and of tests before this one, however many there are
			each := (heapInUse() - before - once) / int64(many)
			t.Logf("%d bytes each", each)
			if name == "Bearer, accounts" {
				each -= 2*int64(unsafe.Sizeof(oauth2.Token{})) + 2*64 // the token, as it came and as it is used, and its header
			}
			require.Less(t, each, int64(1024))
			count := func() int {
				if b, ok := c.scheme.(*Bearer); ok {
					return len(b.accounts.known)
				}
				return len(transport.auth.spaces.known)
			}
			if c.fits {
				require.Equal(t, many, count())
			}
			for i := range 2 * many {
				send(many + i)
			}
			require.Less(t, heapInUse()-before, int64(limit*5/2))
			require.Greater(t, count(), many/2, "no more is dropped than need be")
			send(3*many - 1)
			require.Less(t, transport.auth.spaces.size.Load(), int64(limit+1024))
			runtime.KeepAlive(transport)
		})
	}
}

// What is counted is what there is, whatever a Scheme returns, and it ends at nothing.
func TestSizeIsWhatThereIs(t *testing.T) {
	n := 0
	schemes := []Scheme{&puppet{name: "Changing", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		n++
		switch n % 3 {
		case 0:
			return nil, ErrCredentialsRefused
		case 1:
			return exclusiveWord{word{text: fmt.Sprint("Changing ", n)}}, nil
		}
		return word{text: fmt.Sprint("Changing ", n)}, nil
	}}, &Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}
	transport := &Transport{Schemes: schemes, Account: accountOfUser, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.Header["Authorization"] == nil || rand.IntN(3) == 0 {
			challenge := []string{`Changing realm="x"`, `Basic realm="%d"`, `Digest realm="%d", nonce="n%d", qop="auth", stale=true`}[rand.IntN(3)]
			resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{fmt.Sprintf(challenge, rand.IntN(60), rand.IntN(9))}
		}
		return resp, nil
	})}
	for range thorough.Or(20_000, 3_000) {
		url := fmt.Sprintf("https://host%d.example.com/%d/", rand.IntN(3), rand.IntN(5))
		_, err := transport.RoundTrip(forUser(fmt.Sprint(rand.IntN(3)), httptest.NewRequest("GET", url, nil)))
		require.NoError(t, err)
		if rand.IntN(500) == 0 {
			transport.Forget(fmt.Sprint(rand.IntN(3)))
		}
	}
	s := &transport.auth.spaces
	sum := 0
	for _, k := range s.known {
		size := sizeOfOrigin + len(k.key.account) + len(k.key.host)
		for _, sp := range k.spaces {
			size += sp.size()
		}
		require.Equal(t, size, k.size)
		sum += size
	}
	require.EqualValues(t, sum, s.size.Load())
	for i := range 3 {
		transport.Forget(fmt.Sprint(i))
	}
	require.Zero(t, s.size.Load())
	require.Empty(t, s.known)
	require.Empty(t, s.first)
}

type exclusiveWord struct{ word }

func (exclusiveWord) Exclusive() {}
