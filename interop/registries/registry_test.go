package registries

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func TestPushAndPull(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		layer := []byte("a layer")
		config := l.pushBlob("lab/app", v1.MediaTypeImageConfig, []byte("{}"))
		require.Equal(l, []tokenRequest{{"GET", servers.Username, "repository:lab/app:pull,push", 200}}, l.tokens.take())
		l.cost(3, 1, 0)
		layers := l.pushBlob("lab/app", v1.MediaTypeImageLayer, layer)
		l.pushManifest("lab/app", "latest", config, layers)
		l.cost(3, 0, 0)

		require.JSONEq(l, `{"name":"lab/app","tags":["latest"]}`, string(l.get("/v2/lab/app/tags/list")))
		var manifest v1.Manifest
		require.NoError(l, json.Unmarshal(l.get("/v2/lab/app/manifests/latest"), &manifest))
		require.Equal(l, layer, l.get("/v2/lab/app/blobs/"+manifest.Layers[0].Digest.String()))
		l.cost(3, 0, 0)

		// Another program begins with a pull.
		l.client = l.newClient(&registry.Scheme{Credentials: user})
		require.NoError(l, json.Unmarshal(l.get("/v2/lab/app/manifests/latest"), &manifest))
		require.Equal(l, layer, l.get("/v2/lab/app/blobs/"+manifest.Layers[0].Digest.String()))
		require.Equal(l, []tokenRequest{{"GET", servers.Username, "repository:lab/app:pull", 200}}, l.tokens.take())
		l.cost(3, 1, 0)

		require.Equal(l, http.StatusAccepted, l.do("DELETE", "/v2/lab/app/manifests/"+digestOf(l.get("/v2/lab/app/manifests/latest")), nil))
		require.Equal(l, []tokenRequest{{"GET", servers.Username, "repository:lab/app:delete,pull", 200}}, l.tokens.take())
		l.cost(3, 1, 0)
	})
}

func TestCatalog(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		l.pushImage("lab/app", []byte("a layer"))
		l.cost(6, 1, 1)
		for range 3 {
			require.Equal(l, http.StatusOK, l.do("GET", "/v2/", nil))
			require.JSONEq(l, `{"repositories":["lab/app"]}`, string(l.get("/v2/_catalog")))
		}
		l.cost(8, 2, 2)
	})
}

func TestTwoRepositories(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		for _, repository := range []string{"lab/a", "lab/b"} {
			l.pushImage(repository, []byte("a layer"))
		}
		l.cost(12, 2, 2)
		for i := range 20 {
			l.get("/v2/" + []string{"lab/a", "lab/b"}[i%2] + "/manifests/latest")
		}
		l.cost(20, 0, 0)
	})
}

func TestMount(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		config, layer := l.pushImage("lab/from", []byte("a layer"))
		l.cost(6, 1, 1)
		mount := func(d v1.Descriptor) {
			l.Helper()
			require.Equal(l, http.StatusCreated, l.do("POST", "/v2/lab/to/blobs/uploads/?mount="+d.Digest.String()+"&from=lab/from", nil))
		}
		mount(config)
		require.Equal(l, []tokenRequest{{"GET", servers.Username, "repository:lab/from:pull repository:lab/to:pull,push", 200}}, l.tokens.take())
		l.cost(2, 1, 0)
		mount(layer)
		l.pushManifest("lab/to", "latest", config, layer)
		l.get("/v2/lab/to/manifests/latest")
		l.cost(3, 0, 0)
	})
}

// A user who may only pull is told so: the token server is asked twice at the most, and pulls go on.
func TestDeniedPush(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		push := func(sends, tokens int) {
			l.Helper()
			resp, _ := l.send("POST", l.URL+"/v2/readonly/app/blobs/uploads/", "", nil, 0)
			require.Equal(l, http.StatusUnauthorized, resp.StatusCode)
			var why *authretry.Rejection
			require.ErrorAs(l, authretry.Explain(resp), &why)
			require.Equal(l, authretry.ReasonInsufficientScope, why.Reason, "%v", why)
			l.cost(sends, sends, tokens)
		}
		push(2, 1)
		for range 5 {
			push(1, 0)
		}
		require.Equal(l, http.StatusNotFound, l.do("GET", "/v2/readonly/app/manifests/latest", nil), "what was granted is good")
		l.cost(1, 0, 0)
		push(1, 0)
	})
}

func TestAnonymousPull(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		l.pushImage("public/app", []byte("a layer"))
		l.pushImage("lab/app", []byte("a layer"))
		l.cost(12, 2, 2)
		l.client = l.newClient(&registry.Scheme{})
		for range 3 {
			l.get("/v2/public/app/manifests/latest")
		}
		require.Equal(l, []tokenRequest{{"GET", "", "repository:public/app:pull", 200}}, l.tokens.take())
		l.cost(4, 1, 0)
		require.Equal(l, http.StatusUnauthorized, l.do("GET", "/v2/lab/app/manifests/latest", nil))
		require.Equal(l, http.StatusUnauthorized, l.do("POST", "/v2/public/app/blobs/uploads/", nil))
	})
}

// Passwords and identity tokens go by POST, or by GET where that is all there is.
func TestWaysToAsk(t *testing.T) {
	l := newLab(t, servers.DebianRegistry(t), true)
	l.pushImage("lab/app", []byte("a layer"))
	l.tokens.take()
	identity := func(context.Context, authretry.CredentialsRequest) (username, password string, err error) {
		return "<token>", identityToken, nil
	}
	for _, c := range []struct {
		name   string
		scheme *registry.Scheme
		noPost bool
		want   []string
	}{
		{"password by POST", &registry.Scheme{Credentials: user, PostPassword: true}, false, []string{"POST 200"}},
		{"password where there is no POST", &registry.Scheme{Credentials: user, PostPassword: true}, true, []string{"POST 405", "GET 200"}},
		{"identity token", &registry.Scheme{Credentials: identity}, false, []string{"POST 200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.tokens.set(func() { l.tokens.noPost = c.noPost })
			l.client = l.newClient(c.scheme)
			l.get("/v2/lab/app/manifests/latest")
			var got []string
			for _, r := range l.tokens.take() {
				got = append(got, fmt.Sprint(r.method, " ", r.status))
				if r.status == 200 {
					require.Equal(t, servers.Username, r.user)
				}
			}
			require.Equal(t, c.want, got)
		})
	}
}

// With Basic behind it, the same client is good for a registry that has no token server.
func TestHtpasswd(t *testing.T) {
	l := &lab{T: t}
	l.recorder = servers.Record(t, servers.Registry(t).URL)
	l.URL = l.recorder.URL
	l.tokens = &tokenServer{}
	config := filepath.Join(t.TempDir(), "config.json")
	auth := base64.StdEncoding.EncodeToString([]byte(servers.Username + ":" + servers.Password))
	require.NoError(t, os.WriteFile(config, []byte(`{"auths":{"`+l.host()+`":{"auth":"`+auth+`"}}}`), 0o600))
	credentials := registry.DockerConfig(config)
	l.client = l.newClient(&registry.Scheme{Credentials: credentials}, &authretry.Basic{Credentials: credentials})
	require.Equal(t, http.StatusOK, l.do("GET", "/v2/", nil)) // so that all the rest is below what has asked for Basic
	_, layer := l.pushImage("lab/app", []byte("a layer"))
	require.Equal(t, []byte("a layer"), l.get("/v2/lab/app/blobs/"+layer.Digest.String()))
	l.cost(8, 1, 0)

	l.client = l.newClient(&registry.Scheme{Credentials: user}) // which alone has nothing for it
	require.Equal(t, http.StatusUnauthorized, l.do("GET", "/v2/lab/app/manifests/latest", nil))
	l.cost(1, 1, 0)
}

// pullAll pulls by many goroutines, until it is told to stop, and says what went wrong with pulls that took less than patience. A
// machine that is busy with something else can take longer than a token lives.
func (l *lab) pullAll(workers int, patience time.Duration, stop <-chan struct{}, paths ...string) (pulls int64, failures []string) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards failures
	var count atomic.Int64
	for i := range workers {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				err := pull(l.client, l.URL+paths[n%len(paths)])
				count.Add(1)
				if took := time.Since(start); err != nil && took > patience {
					l.Logf("after %v: %v", took, err)
				} else if err != nil {
					mu.Lock()
					failures = append(failures, err.Error())
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return count.Load(), failures
}

func pull(client *http.Client, url string) error {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", v1.MediaTypeImageManifest)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %v", resp.Status, authretry.Explain(resp))
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Nobody sees that tokens end after two seconds: each is replaced by one request before it does.
func TestTokensOfTwoSeconds(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		_, layer := l.pushImage("lab/app", bytes.Repeat([]byte("a layer "), 1<<10))
		l.tokens.set(func() { l.tokens.lifetime = 2 * time.Second })
		l.tokens.take()
		var refused atomic.Int64
		l.client = l.newClient(&registry.Scheme{Credentials: user})
		l.client.Transport.(*authretry.Transport).OnEvent = func(_ context.Context, e authretry.Event) {
			if e.Kind == authretry.EventDone && e.Attempt == 2 && e.Duration < time.Second {
				refused.Add(1)
			}
		}
		stop := make(chan struct{})
		start := time.Now()
		time.AfterFunc(7*time.Second, func() { close(stop) })
		pulls, failures := l.pullAll(50, time.Second, stop,
			"/v2/lab/app/manifests/latest", "/v2/lab/app/blobs/"+layer.Digest.String(), "/v2/lab/app/tags/list")
		require.Empty(l, failures)
		tokens := len(l.tokens.take())
		l.Logf("%d pulls, %d of them refused once, %d token requests", pulls, refused.Load(), tokens)
		// Those that were sent before there was a token, and a few on a busy machine.
		require.LessOrEqual(l, refused.Load(), 50+pulls/20)
		require.GreaterOrEqual(l, tokens, 3)
		require.LessOrEqual(l, tokens, 2+int(time.Since(start)/time.Second))
	})
}

// Fifty requests that are under way with a token when it becomes bad cost one token request.
func TestKeyRotatesUnderFifty(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		l.pushImage("lab/app", []byte("a layer"))
		l.cost(6, 1, 1)
		arrived, release := make(chan struct{}, 100), make(chan struct{})
		l.recorder.Hold = func(servers.Exchange) {
			arrived <- struct{}{}
			<-release
		}
		var wg sync.WaitGroup
		errs := make(chan error, 50)
		for range 50 {
			wg.Go(func() { errs <- pull(l.client, l.URL+"/v2/lab/app/manifests/latest") })
		}
		for range 50 {
			<-arrived
		}
		l.rotate()
		close(release)
		wg.Wait()
		close(errs)
		for err := range errs {
			require.NoError(l, err)
		}
		l.cost(100, 50, 1)
		for range 5 {
			l.get("/v2/lab/app/manifests/latest")
		}
		l.cost(5, 0, 0)
	})
}

func TestKeyRotatesUnderLoad(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		l.pushImage("lab/app", []byte("a layer"))
		l.recorder.Take()
		l.tokens.take()
		const rotations = 3
		stop, done := make(chan struct{}), make(chan struct{})
		var pulls int64
		var failures []string
		go func() {
			defer close(done)
			pulls, failures = l.pullAll(20, time.Hour, stop, "/v2/lab/app/manifests/latest")
		}()
		for range rotations {
			time.Sleep(time.Second)
			l.rotate()
		}
		time.Sleep(time.Second)
		close(stop)
		<-done
		require.Empty(l, failures)
		tokens := len(l.tokens.take())
		l.Logf("%d pulls, %d sends, %d token requests", pulls, len(l.recorder.Take()), tokens)
		require.Equal(l, rotations, tokens)
	})
}
