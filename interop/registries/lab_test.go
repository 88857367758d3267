// Package registries tests package registry against Debian's docker-registry and distribution 3, and below go-containerregistry and
// oras-go. It is a module of its own for what these need. The first time it builds distribution's registry, which takes minutes.
package registries

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

const distribution = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2"

var (
	buildOnce sync.Once
	buildDir  string // of distribution, once it is built
	errBuild  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// distribution3 builds distribution's registry, which takes minutes the first time.
func distribution3(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() {
		if buildDir, errBuild = os.MkdirTemp("", "distribution"); errBuild != nil {
			return
		}
		if errBuild = os.Chmod(buildDir, 0o755); errBuild != nil { // somebody else runs it
			return
		}
		cmd := exec.Command("go", "install", distribution)
		cmd.Env = append(os.Environ(), "GOBIN="+buildDir)
		var output []byte
		if output, errBuild = cmd.CombinedOutput(); errBuild != nil {
			_, _ = os.Stderr.Write(output)
		}
	})
	if errBuild != nil {
		servers.Missing(t, "distribution 3 cannot be built: "+errBuild.Error())
	}
	return filepath.Join(buildDir, "registry")
}

// A lab is a registry that wants tokens, its token server, and a client for it.
type lab struct {
	*testing.T
	URL      string // of the recorder before the registry
	tokens   *tokenServer
	recorder *servers.Recorder
	client   *http.Client

	start   func(keys []*signingKey) string // starts one more registry of the same content, and returns its URL
	current atomic.Pointer[url.URL]         // the registry that is asked
	next    *signingKey                     // the key after the current one, which the current registry knows already
}

// eachRegistry runs a test against each registry.
func eachRegistry(t *testing.T, test func(l *lab)) {
	t.Run("docker-registry 2.8", func(t *testing.T) { test(newLab(t, servers.DebianRegistry(t), true)) })
	t.Run("distribution 3.1", func(t *testing.T) { test(newLab(t, distribution3(t), false)) })
}

func newLab(t *testing.T, program string, x5c bool) *lab {
	l := &lab{T: t, tokens: newTokenServer(t, x5c), next: newSigningKey(t)}
	data := ""
	l.start = func(keys []*signingKey) string {
		auth := servers.TokenAuth{Realm: l.tokens.URL, Service: service, Issuer: issuer}
		if x5c {
			auth.Certificates = bundle(keys)
		} else {
			auth.JWKS = jwks(t, keys)
		}
		s := servers.RegistryWithTokens(t, program, data, auth)
		if data == "" {
			data = filepath.Join(s.Dir, "data")
		}
		return s.URL
	}
	l.switchTo(l.start([]*signingKey{l.tokens.key, l.next}))
	base := &http.Transport{MaxIdleConnsPerHost: 64, ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(base.CloseIdleConnections)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Transport: base,
		ErrorLog:  log.New(io.Discard, "", 0), // for clients that cancel
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(l.current.Load())
			p.Out.Host = p.In.Host
		},
	})
	t.Cleanup(front.Close)
	l.recorder = servers.Record(t, front.URL)
	l.URL = l.recorder.URL
	l.client = l.newClient(&registry.Scheme{Credentials: user})
	return l
}

func (l *lab) switchTo(target string) {
	to, err := url.Parse(target)
	require.NoError(l, err)
	l.current.Store(to)
}

// rotate has tokens signed with a new key, and replaces the registry by one that does not know the old one. There is no moment
// at which a new token is not good.
func (l *lab) rotate() {
	l.Helper()
	old, next := l.next, newSigningKey(l.T)
	target := l.start([]*signingKey{old, next})
	l.tokens.set(func() { l.tokens.key = old })
	l.next = next
	l.switchTo(target)
}

// newClient returns a client with a Transport of its own.
func (l *lab) newClient(schemes ...authretry.Scheme) *http.Client {
	base := &http.Transport{MaxIdleConnsPerHost: 64, ExpectContinueTimeout: 5 * time.Second}
	l.Cleanup(base.CloseIdleConnections)
	transport := authretry.New(schemes...)
	transport.Base = base
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}
}

// user has the credentials that the token server takes.
func user(context.Context, authretry.CredentialsRequest) (username, password string, err error) {
	return servers.Username, servers.Password, nil
}

// counts returns how many requests the registry has had since this was called before, how many of them it refused, and how many
// requests the token server has had.
func (l *lab) counts() (sends, refusals, tokens int) {
	exchanges := l.recorder.Take()
	for _, e := range exchanges {
		if e.Status == http.StatusUnauthorized {
			refusals++
		}
	}
	return len(exchanges), refusals, len(l.tokens.take())
}

// cost checks what counts returns.
func (l *lab) cost(sends, refusals, tokens int) {
	l.Helper()
	gotSends, gotRefusals, gotTokens := l.counts()
	require.Equal(l, []int{sends, refusals, tokens}, []int{gotSends, gotRefusals, gotTokens}, "sends, refusals, token requests")
}
