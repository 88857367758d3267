package discover

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/stretchr/testify/require"
)

// asking returns the request for a token for a resource on this machine.
func asking(at string) authretry.TokenRequest {
	return authretry.TokenRequest{URL: at + "/mcp", RemoteAddr: "127.0.0.1:443", Challenge: &authretry.Challenge{}}
}

// A server that cannot be reached is not one without metadata: the error says why, which server, and what it was asked for.
func TestServerThatCannotBeReached(t *testing.T) {
	ownAuthority := httptest.NewTLSServer(http.NotFoundHandler())
	defer ownAuthority.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	l.Close()
	resolver, _ := dnstest.Resolver(t, map[string][]string{"known.test.": {"127.0.0.1"}})
	for at, want := range map[string]string{
		ownAuthority.URL:            "x509: certificate signed by unknown authority; if it is to be trusted, see Config.TLSClientConfig)",
		"https://unknown.test:8443": "lookup unknown.test",
		"http://" + closed:          "dial tcp " + closed + ": connect",
		"https" + plain.URL[4:]:     "(it does not speak TLS)",
	} {
		c := &Config{resolver: resolver}
		_, _, err := c.Discover(t.Context(), asking(at))
		require.ErrorIs(t, err, ErrUnreachable, at)
		require.NotErrorIs(t, err, ErrNoMetadata)
		_, host, _ := strings.Cut(at, "://")
		require.ErrorContains(t, err, fmt.Sprintf("discover: resource metadata at %q: %v (", host, ErrUnreachable))
		require.ErrorContains(t, err, want)
		e, _ := errors.AsType[*Error](err)
		require.Equal(t, [2]string{host, "resource metadata"}, [2]string{e.Host, e.Step})

		home := outside(at)
		home.addr = addrOf("127.0.0.1")
		_, err = c.server(t.Context(), home, at)
		require.ErrorContains(t, err, fmt.Sprintf("discover: authorization server metadata at %q: ", host))
		require.ErrorContains(t, err, want)
	}
	_, _, err = new(Config).Discover(t.Context(), asking(ownAuthority.URL))
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	require.True(t, ok)
}

// What neither net nor crypto says of a server is not shown, as it may be the server's own text; that of a certificate is cut.
func TestUnreachableSaysNothingOfTheServers(t *testing.T) {
	require.Empty(t, whyUnreachable(errors.New("secret")))
	require.Empty(t, whyUnreachable(&net.OpError{Op: "proxyconnect", Err: errors.New("secret")}))
	require.Equal(t, strings.Repeat("a", 160)+"...", printable(strings.Repeat("a", 161)))
	require.Equal(t, "a??b", printable("a\n\x7fb"))
}

// In an outage, nobody is told to configure something, and nobody to register the program by hand.
func TestServerThatIsOutOfOrder(t *testing.T) {
	for _, status := range []int{429, 500, 503} {
		for at, step := range map[string]string{metaResource: stepResource, metaServer: stepServer, "/oauth/register": stepRegistration} {
			oauth := &authtest.OAuth{}
			srv := authtest.NewServer(oauth)
			srv.Inject(at, -1, authtest.Reply(status, nil, ""))
			client, _ := program(&Config{Flow: approving(), OriginIsIssuer: true}, nil)
			_, err := client.Get(srv.URL)
			require.ErrorIs(t, err, ErrOutOfOrder, "%s %d", at, status)
			require.NotErrorIs(t, err, ErrNoMetadata)
			require.NotErrorIs(t, err, ErrRegistration)
			require.ErrorContains(t, err, fmt.Sprintf("discover: %s at %q: the server is out of order; try again later (it answered %d)", step, srv.URL[len("http://"):], status))
			srv.Close()
		}
	}
}

// One place that is out of order may be the one that has it, whatever the others say.
func TestOneOfThePlacesIsOutOfOrder(t *testing.T) {
	for name, broken := range map[string]string{"first": metaResource + "/mcp", "last": metaResource} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == broken {
				w.WriteHeader(502)
				return
			}
			w.WriteHeader(404)
		}))
		_, _, err := (&Config{OriginIsIssuer: true}).Discover(t.Context(), asking(srv.URL))
		require.ErrorIs(t, err, ErrOutOfOrder, name)
		srv.Close()
	}

	srv := authtest.NewServer(&authtest.OAuth{})
	defer srv.Close()
	srv.Inject(metaServer, -1, authtest.Reply(500, nil, ""))
	home := outside(srv.URL)
	home.addr = addrOf("127.0.0.1")
	_, err := (&Config{OriginIsIssuer: true}).server(t.Context(), home, srv.URL)
	require.ErrorIs(t, err, ErrOutOfOrder, "which is no word that the endpoints are the default ones")
}

// A server that hangs is named, and the time is that of discovery, which TokenSource.FetchTimeout does not change.
func TestServerThatHangs(t *testing.T) {
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mcp" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(401)
			return
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(done)
	c := &Config{Flow: approving(), HTTPClient: &http.Client{Timeout: 50 * time.Millisecond}}
	client, _ := program(c, nil)
	_, err := client.Get(srv.URL + "/mcp")
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, fmt.Sprintf("resource metadata at %q: the server could not be reached (it has not answered in time, which is 50ms at most)", srv.URL[len("http://"):]))
	require.NotContains(t, err.Error(), "FetchTimeout")
	timeout, ok := errors.AsType[net.Error](err)
	require.True(t, ok && timeout.Timeout())

	_, err = c.register(t.Context(), &Server{at: outside(srv.URL), RegistrationURL: srv.URL + "/register"}, "")
	require.ErrorContains(t, err, "registration at")
	require.ErrorContains(t, err, "50ms")

	require.Equal(t, 10*time.Second, new(Config).timeout())
	require.Equal(t, 10*time.Second, (&Config{HTTPClient: &http.Client{}}).timeout())
	require.Equal(t, 10*time.Second, (&Config{HTTPClient: &http.Client{Timeout: time.Minute}}).timeout())

	// The caller's own time is another matter.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = new(Config).Discover(ctx, asking(srv.URL))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "(the time for it was over)")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, _, err = new(Config).Discover(ctx, asking(srv.URL))
	require.ErrorContains(t, err, "(the request was given up)")
}
