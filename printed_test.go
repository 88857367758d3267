package authretry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry/internal/showtest"
)

// printed checks what package fmt, JSON and a logger make of the contexts that are handed out.
type printed struct {
	t     *testing.T
	asked map[string]bool // by whom
}

func (p *printed) context(who string, ctx context.Context) {
	p.asked[who] = true
	derived, cancel := context.WithCancel(ctx)
	cancel()
	for _, c := range []context.Context{ctx, derived} {
		for how, text := range showtest.Printed(c) {
			require.False(p.t, showtest.Shows(text), "%s, by %s: %s", who, how, text)
		}
	}
}

func (p *printed) refuser(req *http.Request) (*http.Response, error) {
	p.context("Base", req.Context())
	return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {`Word, ApiKey, Basic realm="x", Bearer`}}, Body: http.NoBody, Request: req}, nil
}

// A printingScheme is from another module, for all that a Transport knows.
type printingScheme struct{ *printed }

func (printingScheme) Name() string { return "Word" }

func (s printingScheme) Start(ctx context.Context, _ *http.Request) (Session, error) {
	s.context("Start", ctx)
	return printingSession{s.printed, "Word " + showtest.Secret + "1"}, nil
}

func (s printingScheme) Answer(ctx context.Context, _ *Challenge, refusal *http.Response) (Session, error) {
	s.context("Answer", ctx)
	s.context("refusal", refusal.Request.Context())
	return printingSession{s.printed, "Word " + showtest.Secret + "2"}, nil
}

type printingSession struct {
	*printed
	credentials string
}

func (s printingSession) Authorize(req *http.Request) error {
	s.context("Authorize", req.Context())
	req.Header.Set("Authorization", s.credentials)
	return nil
}

func (s printingSession) Learn(resp *http.Response, _ bool) (bool, error) {
	s.context("Learn", resp.Request.Context())
	return true, nil
}

// A printingSource is a token source of the caller's.
type printingSource struct{ *printed }

func (printingSource) Token() (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: showtest.Secret}, nil
}

func (s printingSource) Refresh(ctx context.Context, _ *oauth2.Token) (*oauth2.Token, error) {
	s.context("Refresh", ctx)
	return &oauth2.Token{AccessToken: showtest.Secret + "2"}, nil
}

// A context that somebody prints, as mocks and loggers do with all arguments, shows nothing of the request that it belongs to.
func TestNoContextPrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	p := &printed{t, map[string]bool{}}
	source := &TokenSource{Initial: &oauth2.Token{AccessToken: secret}, Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
		p.context("Fetch", ctx)
		return &oauth2.Token{AccessToken: secret + "2"}, nil
	}}
	for _, s := range []Scheme{
		printingScheme{p},
		&APIKey{KeyFunc: func(ctx context.Context, _ CredentialsRequest) (string, error) {
			p.context("KeyFunc", ctx)
			return secret, nil
		}},
		&Basic{Ahead: true, Credentials: func(ctx context.Context, _ CredentialsRequest) (string, string, error) {
			p.context("Credentials", ctx)
			return "u", secret, nil
		}},
		&Bearer{Source: printingSource{p}},
		&Bearer{Source: source},
	} {
		for _, account := range []func(*http.Request) string{nil, func(*http.Request) string { return "alice" }} {
			transport := &Transport{Schemes: []Scheme{s}, Base: roundTripFunc(p.refuser), Account: account,
				OnEvent: func(ctx context.Context, _ Event) { p.context("OnEvent", ctx) }}
			req := httptest.NewRequest("GET", "https://api.test/?key="+secret, nil)
			req.Header.Set("Cookie", "session="+secret)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			p.context("response", resp.Request.Context())
		}
	}
	for _, who := range []string{"Start", "Answer", "refusal", "Authorize", "Learn", "Base", "OnEvent", "KeyFunc", "Credentials", "Refresh", "Fetch", "response"} {
		require.True(t, p.asked[who], who)
	}
}
