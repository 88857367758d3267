package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

const (
	user     = "Aladdin"
	password = "open sesame"
)

// login returns a func with the credentials for one registry.
func login(origin string) authretry.CredentialsFunc {
	return func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		if r.Origin != origin {
			return "", "", authretry.ErrUnsupportedChallenge
		}
		return user, password, nil
	}
}

// A lab is a registry with its token server, and a client for it.
type lab struct {
	*testing.T
	guard  *authtest.Registry
	server *authtest.Server
	scheme *registry.Scheme
	client *http.Client
	known  authtest.Counts
}

func newLab(t *testing.T, guard *authtest.Registry) *lab {
	if guard.Username == "" {
		guard.Username, guard.Password = user, password
	}
	srv := authtest.NewServer(guard)
	t.Cleanup(srv.Close)
	l := &lab{T: t, guard: guard, server: srv, scheme: &registry.Scheme{Credentials: login(srv.URL)}}
	base := srv.Client().Transport.(*http.Transport).Clone()
	base.ExpectContinueTimeout = 5 * time.Second // as http.DefaultTransport has one
	t.Cleanup(base.CloseIdleConnections)
	transport := authretry.New(l.scheme)
	transport.Base = base
	l.client = &http.Client{Transport: transport}
	return l
}

// do sends a request and returns its status.
func (l *lab) do(method, path string, body io.Reader) int {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), method, l.server.URL+path, body)
	require.NoError(l, err)
	resp, err := l.client.Do(req)
	require.NoError(l, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(l, err)
	require.NoError(l, resp.Body.Close())
	return resp.StatusCode
}

// cost checks how many requests there were since it was called before, how many of them were refused, and how many token
// requests there were.
func (l *lab) cost(sends, refusals, tokens int) {
	l.Helper()
	now := l.server.Counts()
	require.Equal(l, []int{sends, refusals, tokens}, []int{now.Requests - l.known.Requests, now.Challenged + now.Refused - l.known.Challenged - l.known.Refused, now.TokenRequests - l.known.TokenRequests},
		"sends, refusals, token requests")
	l.known = now
}

func TestPush(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	require.Equal(t, 200, l.do("POST", "/v2/lab/app/blobs/uploads/", nil))
	require.Equal(t, 200, l.do("PUT", "/v2/lab/app/blobs/uploads/1?digest=sha256:0", strings.NewReader("layer")))
	l.cost(3, 1, 1)
	require.Equal(t, 200, l.do("PUT", "/v2/lab/app/manifests/latest", strings.NewReader("{}")))
	require.Equal(t, 200, l.do("GET", "/v2/lab/app/manifests/latest", nil))
	require.Equal(t, 200, l.do("GET", "/v2/lab/app/tags/list", nil))
	l.cost(3, 0, 0)
	require.Equal(t, "repository:lab/app:pull,push", l.server.TokenRequests()[0].Scope)
}

func TestTwoRepositories(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	for _, repository := range []string{"a", "b"} {
		require.Equal(t, 200, l.do("GET", "/v2/"+repository+"/manifests/latest", nil))
	}
	l.cost(4, 2, 2)
	for i := range 20 {
		require.Equal(t, 200, l.do("GET", "/v2/"+[]string{"a", "b"}[i%2]+"/manifests/latest", nil))
	}
	l.cost(20, 0, 0)
}

func TestPushAfterPull(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	require.Equal(t, 200, l.do("GET", "/v2/a/manifests/latest", nil))
	l.cost(2, 1, 1)
	require.Equal(t, 200, l.do("POST", "/v2/a/blobs/uploads/", nil))
	l.cost(2, 1, 1)
	require.Equal(t, 200, l.do("DELETE", "/v2/a/manifests/latest", nil))
	l.cost(2, 1, 1)
	for _, method := range []string{"GET", "POST", "DELETE"} {
		require.Equal(t, 200, l.do(method, "/v2/a/manifests/latest", nil))
	}
	l.cost(3, 0, 0)
	requests := l.server.TokenRequests()
	require.Equal(t, "repository:a:delete,pull,push", requests[2].Scope)
}

func TestMount(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	require.Equal(t, 200, l.do("POST", "/v2/a/blobs/uploads/", nil))
	l.cost(2, 1, 1)
	require.Equal(t, 200, l.do("POST", "/v2/a/blobs/uploads/?mount=sha256:0&from=b", nil))
	l.cost(2, 1, 1)
	require.Equal(t, "repository:a:pull,push repository:b:pull", l.server.TokenRequests()[1].Scope)
	require.Equal(t, 200, l.do("PUT", "/v2/a/manifests/latest", nil))
	require.Equal(t, 200, l.do("POST", "/v2/a/blobs/uploads/?mount=sha256:1&from=b", nil))
	l.cost(2, 0, 0)
}

// One token is not asked for all repositories from which there ever was a mount.
func TestManyMounts(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	for i := range 30 {
		require.Equal(t, 200, l.do("POST", fmt.Sprintf("/v2/a/blobs/uploads/?mount=sha256:0&from=from%d", i), nil))
	}
	for _, r := range l.server.TokenRequests() {
		require.LessOrEqual(t, len(strings.Fields(r.Scope)), 8)
		require.Contains(t, r.Scope, "repository:a:pull,push")
	}
}

func TestOtherPaths(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	for range 3 {
		require.Equal(t, 200, l.do("GET", "/v2/", nil))
		require.Equal(t, 200, l.do("GET", "/v2/_catalog?n=3", nil))
	}
	l.cost(8, 2, 2)
	require.Equal(t, []string{"", "registry:catalog:*"}, []string{l.server.TokenRequests()[0].Scope, l.server.TokenRequests()[1].Scope})
}

// readOnly grants nothing but pull.
func readOnly(_, _ string, actions []string) []string {
	var granted []string
	for _, action := range actions {
		if action == "pull" {
			granted = append(granted, action)
		}
	}
	return granted
}

func TestDeniedPush(t *testing.T) {
	for _, noCodes := range []bool{false, true} {
		t.Run(fmt.Sprint("without codes: ", noCodes), func(t *testing.T) {
			l := newLab(t, &authtest.Registry{Grant: readOnly, NoCodes: noCodes})
			for range 6 {
				resp, err := l.client.Post(l.server.URL+"/v2/a/blobs/uploads/", "", nil)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 401, resp.StatusCode)
				var why *authretry.Rejection
				require.ErrorAs(t, authretry.Explain(resp), &why)
				if !noCodes {
					require.Equal(t, authretry.ReasonInsufficientScope, why.Reason)
				}
			}
			if noCodes {
				l.cost(8, 8, 2) // a token may have been revoked: another is tried, once
			} else {
				l.cost(7, 7, 1)
			}
			before := l.server.Counts().Requests
			require.Equal(t, 200, l.do("GET", "/v2/a/manifests/latest", nil), "what was granted is good")
			require.Equal(t, 401, l.do("POST", "/v2/a/blobs/uploads/", nil))
			require.Equal(t, 2, l.server.Counts().Requests-before)
		})
	}
}

// A token server that grants all or nothing does not spoil what was granted before.
func TestTokenServerThatGrantsAllOrNothing(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && strings.Contains(r.URL.RawQuery, "push"):
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"pull"}`)
		case r.Method == "GET" && r.Header.Get("Authorization") == "Bearer pull":
		default:
			scope := map[string]string{"GET": "pull", "POST": "pull,push"}[r.Method]
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="s",scope="repository:a:`+scope+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: login(srv.URL)})}
	for range 3 {
		resp, err := client.Get(srv.URL + "/v2/a/manifests/latest")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		resp, err = client.Post(srv.URL+"/v2/a/blobs/uploads/", "", nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode)
		require.ErrorContains(t, authretry.Explain(resp), "gives no token for this scope")
	}
}

func TestSigningKeyRotates(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	require.Equal(t, 200, l.do("GET", "/v2/a/manifests/latest", nil))
	l.cost(2, 1, 1)
	for range 3 {
		l.guard.RotateKey()
		var wg sync.WaitGroup
		var bad atomic.Int32
		for range 50 {
			wg.Go(func() {
				resp, err := l.client.Get(l.server.URL + "/v2/a/manifests/latest")
				if err != nil || resp.StatusCode != 200 {
					bad.Add(1)
				}
				if err == nil {
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
		require.Zero(t, bad.Load())
		now := l.server.Counts()
		require.Equal(t, 1, now.TokenRequests-l.known.TokenRequests)
		require.LessOrEqual(t, now.Requests-l.known.Requests, 100)
		l.known = now
	}
}

// With tokens of two seconds, nobody sees one that has ended, and nobody waits.
func TestShortTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := &authtest.Registry{TokenLifetime: 2 * time.Second}
		srv := authtest.NewPipeServer(guard)
		defer srv.Close()
		transport := authretry.New(&registry.Scheme{HTTPClient: srv.Client()})
		transport.Base = srv.Client().Transport
		seconds := thorough.Or(60, 20)
		for range seconds * 1000 / 50 {
			req, err := http.NewRequest("GET", srv.URL+"/v2/a/manifests/latest", nil)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 200, resp.StatusCode)
			time.Sleep(50 * time.Millisecond)
		}
		counts := srv.Counts()
		require.Equal(t, 1, counts.Challenged+counts.Refused)
		require.LessOrEqual(t, counts.TokenRequests, seconds+2)
		require.GreaterOrEqual(t, counts.TokenRequests, seconds/2)
	})
}

// Where nothing is said of its lifetime, a token is good for a minute.
func TestTokensWithoutExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := authtest.NewPipeServer(&authtest.Registry{OmitExpiry: true})
		defer srv.Close()
		transport := authretry.New(&registry.Scheme{HTTPClient: srv.Client()})
		transport.Base = srv.Client().Transport
		for range 3 {
			req, err := http.NewRequest("GET", srv.URL+"/v2/a/manifests/latest", nil)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 200, resp.StatusCode)
			time.Sleep(61 * time.Second)
		}
		counts := srv.Counts()
		require.Equal(t, []int{1, 3}, []int{counts.Challenged + counts.Refused, counts.TokenRequests})
	})
}

// A blob of 256 MiB that can be read once is sent once, and is not kept in memory.
func TestLargeBlob(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // it measures the heap
	size := thorough.Or(256<<20, 64<<20)
	l := newLab(t, &authtest.Registry{})
	l.server.Handle("/v2/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		w.Header().Set(authtest.BodyLengthHeader, fmt.Sprint(n))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	require.Equal(t, 200, l.do("POST", "/v2/a/blobs/uploads/", nil))
	l.cost(2, 1, 1)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most uint64
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block)
	left := size >> 20
	reader := readerFunc(func(p []byte) (int, error) {
		if left--; left < 0 {
			return 0, io.EOF
		}
		if left%4 == 0 {
			runtime.ReadMemStats(&during)
			most = max(most, during.HeapInuse)
		}
		return copy(p, block), nil
	})
	req, err := http.NewRequest("PATCH", l.server.URL+"/v2/a/blobs/uploads/1", bufio1MiB(reader))
	require.NoError(t, err)
	resp, err := l.client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, fmt.Sprint(size), resp.Header.Get(authtest.BodyLengthHeader))
	l.cost(1, 0, 0)
	more := int64(most) - int64(before.HeapInuse)
	t.Logf("%d KiB more memory", more>>10)
	require.LessOrEqual(t, more, int64(24<<20))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// bufio1MiB hands on whole blocks, whatever the size of what asks for them.
func bufio1MiB(r io.Reader) io.Reader {
	block := make([]byte, 1<<20)
	var rest []byte
	return readerFunc(func(p []byte) (int, error) {
		if len(rest) == 0 {
			n, err := r.Read(block)
			if err != nil {
				return 0, err
			}
			rest = block[:n]
		}
		n := copy(p, rest)
		rest = rest[n:]
		return n, nil
	})
}

// A large body for a repository of which nothing is known waits for the challenge.
func TestLargeBlobToAnUnknownRepository(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	body := bytes.Repeat([]byte("x"), 8<<20)
	req, err := http.NewRequest("PUT", l.server.URL+"/v2/b/blobs/uploads/1", io.MultiReader(bytes.NewReader(body)))
	require.NoError(t, err)
	req.ContentLength = int64(len(body)) // without it, the first byte is waited for, but not for long
	resp, err := l.client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	l.cost(2, 1, 1)
	var received int64
	for _, r := range l.server.Requests() {
		received += r.BodyLength
	}
	require.EqualValues(t, len(body), received, "sent once")
}

func TestManyRepositories(t *testing.T) {
	padding := strings.Repeat("x", 1500) // as long as a JWT
	tokens := 0
	tokenServer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		tokens++
		return answer(req, 200, http.Header{}, fmt.Sprintf(`{"token":"%s%d"}`, padding, tokens))
	})
	sends := 0
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sends++
		if req.Header.Get("Authorization") != "" {
			return answer(req, 200, http.Header{}, "")
		}
		name := strings.Split(req.URL.Path, "/")[2]
		return answer(req, 401, http.Header{"Www-Authenticate": {`Bearer realm="https://auth.example.com/token",service="s",scope="repository:` + name + `:pull"`}}, "")
	})
	scheme := &registry.Scheme{HTTPClient: &http.Client{Transport: tokenServer}}
	transport := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}}
	pull := func(from, to int) {
		for i := from; i < to; i++ {
			req, err := http.NewRequest("GET", fmt.Sprintf("https://registry.example.com/v2/app%d/manifests/latest", i), nil)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	start := heap()
	some, all := thorough.Or(5000, 1200), thorough.Or(10000, 1800) // of which 4096 places are known
	pull(0, some)
	half := heap()
	pull(some, all)
	end := heap()
	t.Logf("%d KiB for %d repositories, %d KiB for %d", (half-start)>>10, some, (end-start)>>10, all)
	require.Less(t, end-start, int64(16<<20))
	require.Less(t, end-half, int64(1<<20))
	places, grants, _ := scheme.Remembered()
	require.Equal(t, []int{min(all, 4096), 1024}, []int{places, grants})
	require.Equal(t, []int{2 * all, all}, []int{sends, tokens})
	pull(all-1000, all) // those used last are known
	require.Equal(t, []int{2*all + 1000, all}, []int{sends, tokens})
	runtime.KeepAlive(transport)
}

func answer(req *http.Request, status int, header http.Header, body string) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

// roundTripFunc is a RoundTripper made of a func.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Where Request.Host decides where the request goes, it is that registry's credentials that are asked for.
func TestRegistryIsWhereTheRequestGoes(t *testing.T) {
	var asked []string
	scheme := &registry.Scheme{
		Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
			asked = append(asked, r.Origin)
			return "", "", authretry.ErrUnsupportedChallenge
		},
		HTTPClient: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, 200, http.Header{}, `{"token":"t"}`)
		})},
	}
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) { // which may use a proxy
		if req.Header.Get("Authorization") != "" {
			return answer(req, 200, http.Header{}, "")
		}
		return answer(req, 401, http.Header{"Www-Authenticate": {`Bearer realm="https://auth.example.com/token",service="s"`}}, "")
	})
	req := newRequest(t, "http://registry.internal/v2/")
	req.Host = "registry.example.com"
	resp, err := (&authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}, AllowPlaintext: true}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, []string{"http://registry.example.com"}, asked)
}
