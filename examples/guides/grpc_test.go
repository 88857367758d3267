package guides_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"sync/atomic"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcCredentials gives each call a token. It is a credentials.PerRPCCredentials.
type rpcCredentials struct{ tokens *authretry.TokenSource }

// GetRequestMetadata waits for a token no longer than the call's context lasts.
func (c rpcCredentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.tokens.Obtain(ctx, authretry.TokenRequest{})
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token.AccessToken}, nil
}

// RequireTransportSecurity keeps tokens from connections without TLS.
func (rpcCredentials) RequireTransportSecurity() bool { return true }

// callAgain is an interceptor that has a token replaced that the server refuses, and makes the call once more. Streams are left as they
// are, since what was sent on them cannot be sent again: whoever opens one anew gets the new token.
func (c rpcCredentials) callAgain(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	token, err := c.tokens.Obtain(ctx, authretry.TokenRequest{}) // the call has this one, or a newer one
	if err != nil {
		return errors.Join(status.Error(codes.Unauthenticated, "no token"), err) // errors.Is finds ErrLoginRequired in it
	}
	err = invoke(ctx, method, request, reply, conn, options...)
	switch status.Code(err) {
	case codes.OK:
		c.tokens.Accepted(token) // so that a later refusal means that it was revoked, and is answered at once
		return nil
	case codes.Unauthenticated:
	default:
		return err
	}
	next, refreshErr := c.tokens.Refresh(ctx, token) // one token request, however many calls were refused
	if refreshErr != nil {
		return errors.Join(err, refreshErr)
	}
	if err = invoke(ctx, method, request, reply, conn, options...); err == nil {
		c.tokens.Accepted(next)
	}
	return err
}

// A TokenSource serves gRPC as well as http: by credentials.PerRPCCredentials, and an interceptor for tokens that are refused.
func Example_grpc() {
	api := newHealthAPI()
	defer api.stop()

	source := &authretry.TokenSource{Fetch: api.fetch} // yours has RefreshGrant or ClientCredentialsGrant, and a Store
	own := rpcCredentials{source}
	conn, err := grpc.NewClient(api.addr, grpc.WithTransportCredentials(api.tls),
		grpc.WithPerRPCCredentials(own), grpc.WithUnaryInterceptor(own.callAgain))
	check(err)
	defer conn.Close()

	client := grpc_health_v1.NewHealthClient(conn)
	for range 4 {
		answer, err := client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		check(err)
		fmt.Println(answer.Status, "token", api.tokens.Load(), "refused", api.refused.Load())
		api.tokens.Add(1) // the server no longer wants the token
	}
	// Output:
	// SERVING token 1 refused 0
	// SERVING token 3 refused 1
	// SERVING token 5 refused 2
	// SERVING token 7 refused 3
}

// A healthAPI is a gRPC server that accepts the last token only.
type healthAPI struct {
	addr            string
	tls             credentials.TransportCredentials
	stop            func()
	tokens, refused atomic.Int32
}

func newHealthAPI() *healthAPI {
	certificates := httptest.NewTLSServer(nil) // for a certificate, and who trusts it
	defer certificates.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	roots := x509.NewCertPool()
	roots.AddCert(certificates.Certificate())
	a := &healthAPI{addr: listener.Addr().String(), tls: credentials.NewClientTLSFromCert(roots, "example.com")}
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&certificates.TLS.Certificates[0])), grpc.UnaryInterceptor(a.guard))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(listener)
	a.stop = srv.Stop
	return a
}

func (a *healthAPI) token() string { return fmt.Sprint("token-", a.tokens.Load()) }

func (a *healthAPI) fetch(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
	a.tokens.Add(1)
	return &oauth2.Token{AccessToken: a.token()}, nil
}

func (a *healthAPI) guard(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if got := metadata.ValueFromIncomingContext(ctx, "authorization"); len(got) != 1 || got[0] != "Bearer "+a.token() {
		a.refused.Add(1)
		return nil, status.Error(codes.Unauthenticated, "no good token")
	}
	return handle(ctx, request)
}
