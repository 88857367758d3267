package registries

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// By TLS and HTTP/2 it costs the same. The token server's certificate is judged by Scheme.TLSClientConfig, not by what there is for
// the registry.
func TestTLS(t *testing.T) {
	for name, program := range map[string]func(*testing.T) string{
		"docker-registry 2.8": func(t *testing.T) string { return servers.DebianRegistry(t) },
		"distribution 3.1":    distribution3,
	} {
		t.Run(name, func(t *testing.T) {
			x5c := name == "docker-registry 2.8"
			dir := t.TempDir()
			ca := servers.NewCA(t, dir)
			l := &lab{T: t, tokens: newTokenServer(t, x5c, ca.Certificate(t, dir))}
			auth := servers.TokenAuth{Realm: l.tokens.URL, Service: service, Issuer: issuer, CA: ca}
			if keys := []*signingKey{l.tokens.key}; x5c {
				auth.Certificates = bundle(keys)
			} else {
				auth.JWKS = jwks(t, keys)
			}
			l.URL = servers.RegistryWithTokens(t, program(t), "", auth).TLS
			var sends atomic.Int64
			trust := func(scheme *registry.Scheme) {
				l.client = l.newClient(scheme)
				transport := l.client.Transport.(*authretry.Transport)
				base := transport.Base.(*http.Transport)
				base.TLSClientConfig, base.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool}, true
				transport.OnEvent = func(_ context.Context, e authretry.Event) {
					if e.Kind == authretry.EventDone {
						sends.Add(int64(e.Attempt))
					}
				}
			}

			trust(&registry.Scheme{Credentials: user, TLSClientConfig: &tls.Config{RootCAs: ca.Pool}})
			_, layer := l.pushImage("lab/app", []byte("a layer"))
			require.Equal(t, []int64{6, 1}, []int64{sends.Load(), int64(len(l.tokens.take()))}, "sends, token requests")
			resp, body := l.send("GET", l.URL+"/v2/lab/app/blobs/"+layer.Digest.String(), "", nil, 0)
			require.Equal(t, "a layer", string(body))
			require.Equal(t, 2, resp.ProtoMajor)
			require.EqualValues(t, 7, sends.Load())

			trust(&registry.Scheme{Credentials: user})
			_, err := l.client.Get(l.URL + "/v2/lab/app/tags/list")
			require.ErrorContains(t, err, "certificate signed by unknown authority")
			require.Empty(t, l.tokens.take())
		})
	}
}
