package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// rejectionFor sends a GET and returns what RoundTrip or Explain has to say of it.
func rejectionFor(t *testing.T, transport *Transport, url string) *Rejection {
	t.Helper()
	resp, err := transport.RoundTrip(httptest.NewRequest("GET", url, nil))
	if err == nil {
		defer resp.Body.Close()
		err = Explain(resp)
	}
	var rejection *Rejection
	require.ErrorAs(t, err, &rejection)
	return rejection
}

// A server that refuses every token has one reason: for the request that has had the token replaced, and for those after it.
func TestFreshTokenThatIsRefusedHasOneReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: (&issuer{lifetime: time.Hour}).fetch}
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, Body: http.NoBody}, nil
		})
		transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src}}}
		for _, retried := range []bool{true, false, false} {
			r := rejectionFor(t, transport, "https://a.test/")
			require.Equal(t, ReasonFreshTokenRefused, r.Reason)
			require.Equal(t, retried, r.Retried)
			require.ErrorIs(t, r, ErrTokenRefused)
		}
	})
}

// A password from a variable that is not set is sent as it is, for there are users without one. The refusal says so.
func TestRefusalOfAnEmptyPasswordSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		challenge string
		scheme    Scheme
		says      bool
	}{
		"Digest":               {`Digest realm="x", nonce="n", qop="auth"`, &Digest{Username: "u"}, true},
		"Basic":                {`Basic realm="x"`, &Basic{Username: "u"}, true},
		"Basic, ahead":         {`Basic realm="x"`, &Basic{Username: "u", Ahead: true}, true},
		"Digest with password": {`Digest realm="x", nonce="n", qop="auth"`, &Digest{Username: "u", Password: "p"}, false},
		"Basic with password":  {`Basic realm="x"`, &Basic{Username: "u", Password: "p:"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {c.challenge}}}, nil
			})
			r := rejectionFor(t, &Transport{Base: base, Schemes: []Scheme{c.scheme}}, "https://a.test/")
			require.Equal(t, ReasonCredentialsRefused, r.Reason)
			require.Equal(t, c.says, strings.HasSuffix(r.Error(), "meant for this server: the password is empty"), r.Error())
		})
	}
}

// Each rejection says what happened and names what to change.
func TestRejectionsSayWhatToChange(t *testing.T) {
	answer := func(status int, challenges ...string) *Transport {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			header := http.Header{"Www-Authenticate": challenges}
			if status == 407 {
				header = http.Header{"Proxy-Authenticate": challenges}
			}
			return &http.Response{StatusCode: status, Body: http.NoBody, Request: req, Header: header}, nil
		})
		return &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	}
	bearer := func(status int, challenges ...string) *Transport {
		n := 0
		transport := answer(status, challenges...)
		transport.Schemes = []Scheme{&Bearer{Source: &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			n++
			return &oauth2.Token{AccessToken: fmt.Sprint("token", n)}, nil
		}}}}
		return transport
	}
	static := func(status int, challenges ...string) *Transport {
		transport := answer(status, challenges...)
		transport.Schemes = []Scheme{&Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"})}}
		return transport
	}
	for _, c := range []struct {
		name      string
		transport *Transport
		reason    Reason
		text      string
	}{
		{"no challenge", answer(401), ReasonNoChallenge,
			"authretry: https://a.test answered 401: the refusal names no challenge (RFC 9110 §15.5.2), so no scheme could be chosen; if the server wants a token or an API key, let Bearer or APIKey send it ahead"},
		{"malformed", answer(401, `="`), ReasonMalformedChallenge,
			"authretry: https://a.test answered 401: its WWW-Authenticate header cannot be read: damaged challenge: stray equals sign at offset 0 of header line 0"},
		{"unsupported", answer(401, "Negotiate"), ReasonUnsupportedScheme,
			"authretry: https://a.test answered 401: it asks for Negotiate, and Transport.Schemes has only Digest; add what it asks for (Negotiate is in module negotiate)"},
		{"unsupported, of a registry", answer(401, `Bearer realm="https://auth.test/token",service="r"`, "NTLM", "Custom"), ReasonUnsupportedScheme,
			`authretry: https://a.test answered 401: it asks for Bearer (realm "https://auth.test/token") or NTLM or Custom, and Transport.Schemes has only Digest; add what it asks for (that of a container registry is in package registry; NTLM is in module ntlm)`},
		{"unknown algorithm", answer(401, `Digest realm="x", nonce="n", algorithm=SHA3`), ReasonUnsupportedScheme,
			`authretry: https://a.test answered 401: it asks for Digest (realm "x"), which the configured scheme cannot answer: Digest: its algorithm "SHA3" is unknown`},
		{"refused", answer(401, `Digest realm="x", nonce="n", qop="auth"`), ReasonCredentialsRefused,
			`authretry: https://a.test answered 401: the Digest credentials were refused; it asks for Digest (realm "x"); check that they are right, and meant for this server`},
		{"a token where a password is wanted", static(401, `Basic realm="x"`, "NTLM"), ReasonCredentialsRefused,
			`authretry: https://a.test answered 401: the Bearer credentials were refused; it asks for Basic (realm "x") or NTLM, and Transport.Schemes has only Bearer; add what it asks for (NTLM is in module ntlm), or check that the credentials are right, and meant for this server: Bearer.Source is an oauth2.StaticTokenSource, which has no other token; give Bearer a TokenSource`},
		{"a token", static(401, `Bearer realm="x"`, `Basic realm="x"`), ReasonCredentialsRefused,
			`authretry: https://a.test answered 401: the Bearer credentials were refused; it asks for Bearer (realm "x") or Basic (realm "x"); check that they are right, and meant for this server: Bearer.Source is an oauth2.StaticTokenSource, which has no other token; give Bearer a TokenSource`},
		{"proxy", answer(407, `Basic realm="corp"`), ReasonProxyAuthentication,
			`authretry: https://a.test answered 407: a proxy asks for Basic (realm "corp"); give it credentials with NewProxyTransport`},
		{"insufficient scope", bearer(403, `Bearer error="insufficient_scope", scope="write"`), ReasonInsufficientScope,
			`authretry: https://a.test answered 403: the token is good, but its scope does not suffice (RFC 6750 §3.1); it needs scope "write", which the authorization server has to grant (if StepUp of the Scheme is set, it asks for that)`},
		{"insufficient scope, said with 401", bearer(401, `Bearer error="insufficient_scope", scope="write"`), ReasonInsufficientScope,
			`authretry: https://a.test answered 401: the token is good, but its scope does not suffice (RFC 6750 §3.1); it needs scope "write", which the authorization server has to grant (if StepUp of the Scheme is set, it asks for that)`},
		{"insufficient login", bearer(401, `Bearer error="insufficient_user_authentication", max_age="60"`), ReasonInsufficientLogin,
			`authretry: https://a.test answered 401: the user's login is not fresh or not strong enough for this (RFC 9470); have the user log in again (if StepUp of the Scheme and TokenSource.Login are set, they do that)`},
		{"refused, ahead, for another scheme", bearer(401, "DPoP"), ReasonFreshTokenRefused,
			"authretry: https://a.test answered 401: it refuses a token that the token endpoint has only just issued, and asks for DPoP instead; check its audience, its scope, and the clocks; it is not replaced again before TokenSource.MinRefreshInterval is over"},
		{"refused, ahead", bearer(401), ReasonFreshTokenRefused,
			"authretry: https://a.test answered 401: it refuses a token that the token endpoint has only just issued; check its audience, its scope, and the clocks; it is not replaced again before TokenSource.MinRefreshInterval is over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rejectionFor(t, c.transport, "https://a.test/?secret")
			require.Equal(t, c.reason, r.Reason, r.Error())
			require.Equal(t, "https://a.test", r.Origin)
			if c.text != "" {
				require.Equal(t, c.text, r.Error())
			}
			require.NotContains(t, r.Error(), "secret")
			t.Log(r)
		})
	}
	t.Run("refused though fresh", func(t *testing.T) {
		transport := bearer(401, `Bearer error="invalid_token"`)
		rejectionFor(t, transport, "https://a.test/")
		r := rejectionFor(t, transport, "https://a.test/") // the token is the one that was fetched for the first
		require.Equal(t, ReasonFreshTokenRefused, r.Reason, r.Error())
		require.ErrorIs(t, r, ErrTokenRefused)
	})
	t.Run("untrusted server", func(t *testing.T) {
		guard := &authtest.Digest{Username: "u", Password: "p", Rspauth: authtest.RspauthWrong}
		srv := authtest.NewServer(guard)
		defer srv.Close()
		r := rejectionFor(t, New(&Digest{Username: "u", Password: "p", RequireMutualAuth: true}), srv.URL)
		require.Equal(t, ReasonUntrustedServer, r.Reason)
		require.ErrorIs(t, r, ErrMutualAuth)
	})
	t.Run("login required", func(t *testing.T) {
		b := &authtest.Bearer{}
		srv := authtest.NewServer(b)
		defer srv.Close()
		login := b.Login()
		b.Revoke(login.RefreshToken)
		r := rejectionFor(t, New(&Bearer{Source: &TokenSource{Fetch: RefreshGrant(b.Config()), Initial: login}}), srv.URL)
		require.Equal(t, ReasonNoCredentials, r.Reason)
		require.ErrorIs(t, r, ErrLoginRequired)
		require.NotContains(t, r.Error(), login.RefreshToken)
		t.Log(r)
	})
}

func TestRejectionsInWords(t *testing.T) {
	named := func(names ...string) (list []Challenge) {
		for _, name := range names {
			list = append(list, Challenge{Scheme: name})
		}
		return list
	}
	for want, r := range map[string]*Rejection{
		"the Bearer credentials sent with the request were not accepted": {Reason: ReasonNoChallenge, Ahead: true, Tried: []string{"Bearer"}},
		"authretry: the server answered 403":                             {Reason: ReasonInsufficientScope, Status: 403},
		"let Bearer or APIKey send it ahead":                             {Reason: ReasonNoChallenge},
		"authretry: the response was discarded: no rspauth":              {Reason: ReasonUntrustedServer, Err: errors.New("no rspauth")},
		"authretry: credentials could not be obtained: no rspauth":       {Reason: ReasonNoCredentials, Err: errors.New("no rspauth")},
		"a proxy asks for nothing that could be read; give it":           {Reason: ReasonProxyAuthentication},
		"a proxy asks for A; give it":                                    {Reason: ReasonProxyAuthentication, Challenges: named("A")},
		"a proxy asks for A or B or C or D; give it":                     {Reason: ReasonProxyAuthentication, Challenges: named("A", "B", "C", "D")},
		"a proxy asks for A or B or C or D and others; give it":          {Reason: ReasonProxyAuthentication, Challenges: named("A", "B", "C", "D", "E", "F")},
	} {
		require.Contains(t, r.Error(), want)
	}
	r := &Rejection{Reason: ReasonUntrustedServer, Status: 401, Err: errors.New("")}
	require.True(t, strings.HasSuffix(r.Error(), "the response was discarded"), r.Error())
}

// A Base that puts its own token in place of ours is named, whatever is refused then.
func TestBaseWithATokenOfItsOwn(t *testing.T) {
	guard := &authtest.Bearer{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	base := &oauth2.Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: secret})}
	for name, s := range map[string]Scheme{
		"a token":        &Bearer{Source: &TokenSource{Initial: guard.Login(), Fetch: RefreshGrant(guard.Config())}},
		"a static token": &Bearer{Source: oauth2.StaticTokenSource(guard.Login())},
	} {
		transport := &Transport{Base: base, Schemes: []Scheme{s}}
		require.ErrorContains(t, transport.Validate(), "Transport.Base is an oauth2.Transport")
		resp, err := (&http.Client{Transport: transport}).Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		rejection := Explain(resp).(*Rejection)
		require.Equal(t, ReasonMisconfigured, rejection.Reason, name)
		require.ErrorContains(t, rejection, "Base has put another Authorization in place")
		require.NotContains(t, rejection.Error(), secret)
	}
	require.NoError(t, (&Transport{Base: base, Schemes: []Scheme{&APIKey{Header: "X-API-Key", Key: "k"}}}).Validate(), "which goes beside it")
	require.NoError(t, (&Transport{Base: base, Schemes: []Scheme{&puppet{}}}).Validate(), "of which nothing is known")
}

// Which of two Transports has the word, one over the other, is by what it has done.
func TestWordOfNestedTransports(t *testing.T) {
	for what, list := range [][]*Rejection{
		hasPassed: {{Reason: ReasonOriginNotListed}, {Reason: ReasonProxyAuthentication},
			{Reason: ReasonProxyAuthentication, Err: errOriginRefuses}, {Reason: ReasonProxyAuthentication, Err: errOwnProxyAuthorization}},
		hasStopped: {{Reason: ReasonOwnAuthorization}, {Reason: ReasonRedirected}, {Reason: ReasonNoAccount}},
		hasLooked:  {{Reason: ReasonNoChallenge}, {Reason: ReasonUnsupportedScheme}, {Reason: ReasonProxyAuthentication, Err: errors.New("no scheme")}},
		hasTried:   {{Reason: ReasonBodyNotReplayable}, {Reason: ReasonCredentialsRefused, Tried: []string{"Basic"}}, {Reason: ReasonRedirected, Tried: []string{"Basic"}}},
	} {
		for _, r := range list {
			require.Equal(t, what, r.weight(), r.Error())
			require.Equal(t, r, wordOf(nil, r))
			require.Equal(t, r, wordOf(r, nil))
		}
	}
	passed, looked, tried := &Rejection{Reason: ReasonRedirected}, &Rejection{Reason: ReasonNoChallenge}, &Rejection{Reason: ReasonBodyNotReplayable}
	require.Same(t, looked, wordOf(looked, passed))
	require.Same(t, looked, wordOf(passed, looked))
	require.Same(t, tried, wordOf(looked, tried))
	other := *tried
	require.Same(t, tried, wordOf(&other, tried), "the innermost that has tried")
	another := *looked
	require.Same(t, looked, wordOf(looked, &another), "the outermost that has looked")
	unlisted, nobody := &Rejection{Reason: ReasonOriginNotListed}, &Rejection{Reason: ReasonNoAccount}
	require.Same(t, nobody, wordOf(unlisted, nobody), "one that has the origin listed")
	require.Same(t, nobody, wordOf(nobody, unlisted), "one that has the origin listed")
}

// A Base that makes requests of its own by another Transport leaves what that one says in their context, where it is replaced.
func TestExplanationIsReplacedAndNotPiledUp(t *testing.T) {
	inner := &Transport{Base: answering(`Basic realm="x"`), Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return inner.RoundTrip(httptest.NewRequest("GET", req.URL.String(), nil).WithContext(t.Context()))
	})
	outer := &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	resp, err := outer.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil))
	require.NoError(t, err)
	e, ok := resp.Request.Context().(*explained)
	require.True(t, ok)
	require.Equal(t, Explain(resp), error(e.rejection))
	_, piled := e.Context.(*explained)
	require.False(t, piled)
}

// A URL with a host that nobody can dial does not make a Rejection, or an Event, that is as long.
func TestOriginsThatAreToldAreBounded(t *testing.T) {
	var events []Event
	transport := New(&Digest{Username: "u", Password: "p"})
	transport.Base = answering(`Basic realm="x"`)
	transport.OnEvent = func(_ context.Context, e Event) { events = append(events, e) }
	resp := roundTrip(t, transport, "https://"+strings.Repeat("h", 10_000)+"/")
	r, ok := errors.AsType[*Rejection](Explain(resp))
	require.True(t, ok)
	require.Len(t, r.Origin, 300)
	require.NotEmpty(t, events)
	for _, e := range events {
		require.Len(t, e.Origin, 300)
	}
}
