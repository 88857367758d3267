package login

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// redirectURI is where nobody listens: what is sent there is read from the redirect.
const redirectURI = "http://127.0.0.1:1/callback"

// at returns an Authorization at an OAuth, and the server that it is on.
func at(t *testing.T, oauth *authtest.OAuth) (*Authorization, *authtest.Server) {
	srv := authtest.NewServer(oauth)
	t.Cleanup(srv.Close)
	return of(srv, oauth), srv
}

func of(srv *authtest.Server, oauth *authtest.OAuth) *Authorization {
	return &Authorization{
		Endpoint: &authretry.TokenEndpoint{URL: oauth.TokenURL(), ClientID: oauth.ClientID, Issuer: oauth.Issuer(),
			HTTPClient: srv.Client(), Params: url.Values{"resource": {oauth.Resource()}}},
		URL: srv.URL + "/oauth/authorize", DeviceURL: srv.URL + "/oauth/device", AnswersWithIssuer: true,
	}
}

// decide has somebody decide, and returns the query of what the program is sent.
func decide(t *testing.T, opened, decision string) url.Values {
	t.Helper()
	client := &http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Port() == "1" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := client.Get(opened)
	require.NoError(t, err)
	if resp.StatusCode == 200 {
		page := new(strings.Builder)
		_, _ = fmt.Fprint(page, readAll(t, resp))
		_, rest, _ := strings.Cut(page.String(), `value="`)
		ticket, _, _ := strings.Cut(rest, `"`)
		u, _ := url.Parse(opened)
		resp, err = client.PostForm(u.Scheme+"://"+u.Host+"/oauth/decide", url.Values{"ticket": {ticket}, "decision": {decision}})
		require.NoError(t, err)
	}
	defer resp.Body.Close()
	require.Equal(t, http.StatusFound, resp.StatusCode)
	to, err := resp.Location()
	require.NoError(t, err)
	return to.Query()
}

func TestCode(t *testing.T) {
	a, srv := at(t, &authtest.OAuth{ClientID: "me"})
	a.Scopes, a.Claims, a.ACRValues, a.MaxAge, a.HasMaxAge = []string{"x", "y"}, `{"a":1}`, []string{"gold"}, time.Minute, true
	a.Params = url.Values{"prompt": {"login"}}
	code, err := a.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	u, err := url.Parse(code.URL())
	require.NoError(t, err)
	q := u.Query()
	for name, want := range map[string]string{"response_type": "code", "client_id": "me", "redirect_uri": redirectURI, "scope": "x y", "claims": `{"a":1}`,
		"acr_values": "gold", "max_age": "60", "prompt": "login", "code_challenge_method": "S256", "resource": srv.URL} {
		require.Equal(t, []string{want}, q[name], name)
	}
	answer := decide(t, code.URL(), "allow")
	require.True(t, code.Matches(answer))
	tok, err := code.Redeem(t.Context(), answer)
	require.NoError(t, err)
	require.Equal(t, srv.URL, authretry.RecordOf(tok).Resource)
	require.Equal(t, "x y", tok.Extra("scope"))
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", code, *code, code), q.Get("state"))

	// Two logins have nothing in common.
	other, err := a.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	o, _ := url.Parse(other.URL())
	for _, name := range []string{"state", "code_challenge"} {
		require.NotEqual(t, q.Get(name), o.Query().Get(name))
	}
	require.False(t, other.Matches(answer), "the answer to the first is not one to the second")
	_, err = other.Redeem(t.Context(), answer)
	require.Error(t, err)
	require.Len(t, srv.TokenRequests(), 1, "its code was not sent")
}

func TestCodeByPushedRequest(t *testing.T) {
	a, srv := at(t, &authtest.OAuth{ClientID: "me", ClientSecret: "s", RequirePushed: true})
	a.PushedURL, a.Endpoint.Auth = srv.URL+"/oauth/par", authretry.SecretBasic("s")
	code, err := a.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	u, _ := url.Parse(code.URL())
	require.Len(t, u.Query(), 2, "client_id and request_uri: %s", u)
	_, err = code.Redeem(t.Context(), decide(t, code.URL(), "allow"))
	require.NoError(t, err)

	a.Endpoint = &authretry.TokenEndpoint{URL: a.Endpoint.URL, ClientID: "me", Auth: authretry.SecretPost("wrong"), HTTPClient: srv.Client()}
	_, err = a.Code(t.Context(), redirectURI)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "invalid_client", e.Code)
	require.NotContains(t, err.Error(), "wrong secret", "which is the server's text")
}

func TestDeclinedCode(t *testing.T) {
	a, _ := at(t, &authtest.OAuth{ClientID: "me"})
	code, err := a.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	_, err = code.Redeem(t.Context(), decide(t, code.URL(), "deny"))
	require.ErrorIs(t, err, ErrDeclined)
}

func TestAnswersThatAreNotUsed(t *testing.T) {
	a, srv := at(t, &authtest.OAuth{ClientID: "me"})
	for name, c := range map[string]struct {
		change func(url.Values)
		silent bool // the server does not say that it names itself
		want   string
		issuer bool
	}{
		"wrong state":              {change: func(q url.Values) { q.Set("state", "x") }, want: "another login"},
		"no state":                 {change: func(q url.Values) { q.Del("state") }, want: "another login"},
		"two states":               {change: func(q url.Values) { q.Add("state", q.Get("state")) }, want: "another login"},
		"no iss":                   {change: func(q url.Values) { q.Del("iss") }, issuer: true},
		"another iss":              {change: func(q url.Values) { q.Set("iss", "https://evil.example.com") }, issuer: true},
		"iss with a slash":         {change: func(q url.Values) { q.Set("iss", q.Get("iss")+"/") }, issuer: true},
		"iss in capitals":          {change: func(q url.Values) { q.Set("iss", strings.ToUpper(q.Get("iss"))) }, issuer: true},
		"two iss":                  {change: func(q url.Values) { q.Add("iss", q.Get("iss")) }, issuer: true},
		"another iss, not said":    {change: func(q url.Values) { q.Set("iss", "https://evil.example.com") }, silent: true, issuer: true},
		"an error of another iss":  {change: func(q url.Values) { q.Set("iss", "https://evil.example.com"); q.Set("error", "access_denied") }, issuer: true},
		"an error":                 {change: func(q url.Values) { q.Set("error", "server_error") }, want: "try again later"},
		"a key that is missing":    {change: func(q url.Values) { q.Set("error", "invalid_dpop_proof") }, want: "set TokenEndpoint.Proof, or discover.Config.Proof"},
		"an error of its own":      {change: func(q url.Values) { q.Set("error", "call 555-1234 now") }, want: "answered with an error"},
		"no code":                  {change: func(q url.Values) { q.Del("code") }, want: "no code"},
		"two codes":                {change: func(q url.Values) { q.Add("code", "x") }, want: "more than one"},
		"a code that is very long": {change: func(q url.Values) { q.Set("code", strings.Repeat("x", maxCode+1)) }, want: "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			b := *a
			b.AnswersWithIssuer = !c.silent
			code, err := b.Code(t.Context(), redirectURI)
			require.NoError(t, err)
			answer := decide(t, code.URL(), "allow")
			c.change(answer)
			_, err = code.Redeem(t.Context(), answer)
			if c.issuer {
				require.ErrorIs(t, err, ErrIssuer)
			} else {
				require.ErrorContains(t, err, c.want)
			}
			require.NotContains(t, err.Error(), "555")
			require.NotContains(t, err.Error(), "evil")
			require.Empty(t, srv.TokenRequests(), "the code is not sent")
		})
	}
	code, err := (&Authorization{Endpoint: a.Endpoint, URL: a.URL}).Code(t.Context(), redirectURI)
	require.NoError(t, err)
	answer := decide(t, code.URL(), "allow")
	answer.Del("iss")
	_, err = code.Redeem(t.Context(), answer)
	require.NoError(t, err, "it has not said that it names itself")
}

// A code is sent once, whatever comes of it.
func TestCodeIsSentOnce(t *testing.T) {
	a, srv := at(t, &authtest.OAuth{ClientID: "me"})
	for _, f := range []authtest.Fault{authtest.Reply(503, nil, ""), authtest.Reply(200, nil, "<html>"), authtest.TokenError("invalid_grant")} {
		srv.Reset()
		a.Endpoint.HTTPClient = nil // which would try again
		srv.Inject("/oauth/token", -1, f)
		code, err := a.Code(t.Context(), redirectURI)
		require.NoError(t, err)
		_, err = code.Redeem(t.Context(), decide(t, code.URL(), "allow"))
		require.Error(t, err)
		require.Len(t, srv.TokenRequests(), 1)
	}
}

// A token endpoint that does not answer ends the login, not only its context.
func TestRedeemIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Code{state: "s", endpoint: &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "me",
			HTTPClient: &http.Client{Transport: hanging{}}}}
		began := time.Now()
		_, err := c.Redeem(t.Context(), url.Values{"state": {"s"}, "code": {"c"}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, postTimeout, time.Since(began))
	})
}

type hanging struct{}

func (hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func TestMistakes(t *testing.T) {
	a, _ := at(t, &authtest.OAuth{ClientID: "me"})
	for name, change := range map[string]func(*Authorization){
		"no URL":          func(a *Authorization) { a.URL = "" },
		"no endpoint":     func(a *Authorization) { a.Endpoint = nil },
		"params":          func(a *Authorization) { a.Params = url.Values{"state": {"x"}} },
		"params, client":  func(a *Authorization) { a.Params = url.Values{"client_secret": {"x"}} },
		"http":            func(a *Authorization) { a.URL = "http://auth.example.com/" },
		"javascript":      func(a *Authorization) { a.URL = "javascript:alert(1)" },
		"file":            func(a *Authorization) { a.URL = "file:///etc/passwd" },
		"user":            func(a *Authorization) { a.URL = "https://user:pass@auth.example.com/" },
		"fragment":        func(a *Authorization) { a.URL = "https://auth.example.com/#x" },
		"shell":           func(a *Authorization) { a.URL = "https://auth.example.com/$(id)" },
		"backtick":        func(a *Authorization) { a.URL = "https://auth.example.com/`id`" },
		"quote":           func(a *Authorization) { a.URL = `https://auth.example.com/"` },
		"space":           func(a *Authorization) { a.URL = "https://auth.example.com/ -x" },
		"escape":          func(a *Authorization) { a.URL = "https://auth.example.com/\x1b[2J" },
		"long":            func(a *Authorization) { a.URL = "https://auth.example.com/" + strings.Repeat("x", maxURL) },
		"no host":         func(a *Authorization) { a.URL = "https:///x" },
		"opaque":          func(a *Authorization) { a.URL = "https:auth.example.com" },
		"PAR by nonsense": func(a *Authorization) { a.PushedURL = "://" },
		"registration": func(a *Authorization) {
			a.Register = func(context.Context, string) (*authretry.TokenEndpoint, error) { return nil, ErrDeclined }
		},
	} {
		b := *a
		change(&b)
		_, err := b.Code(t.Context(), redirectURI)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "pass")
		require.NotContains(t, err.Error(), "\x1b")
	}
	b := *a
	b.PushedURL = "http://auth.example.com/"
	_, err := b.Code(t.Context(), redirectURI)
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonPlaintext, r.Reason)
	b = *a
	b.URL = a.URL + "?tenant=1"
	code, err := b.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	require.Contains(t, code.URL(), "tenant=1", "a query of the endpoint's own stays")
}

func TestLoginFunc(t *testing.T) {
	a, _ := at(t, &authtest.OAuth{ClientID: "me"})
	a.Scopes = []string{"x"}
	var got *Authorization
	f := a.LoginFunc(flowFunc(func(b *Authorization) { got = b }))
	_, err := f(t.Context(), authretry.TokenRequest{Scopes: []string{"x", "y"}, Claims: "{}", ACRValues: []string{"gold"}, MaxAge: time.Second, HasMaxAge: true})
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, got.Scopes)
	require.Equal(t, "{}", got.Claims)
	require.Equal(t, []string{"gold"}, got.ACRValues)
	require.True(t, got.HasMaxAge && got.MaxAge == time.Second)
	require.Equal(t, []string{"x"}, a.Scopes)
	_, err = a.LoginFunc(nil)(t.Context(), authretry.TokenRequest{})
	require.Error(t, err)
}

type flowFunc func(*Authorization)

func (f flowFunc) Login(_ context.Context, a *Authorization) (*oauth2.Token, error) {
	f(a)
	return &oauth2.Token{AccessToken: "a"}, nil
}
