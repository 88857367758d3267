package authretry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// Whoever has used package oauth2 gets the same from the same odd answers, but for what is better understood.
func TestTokenAnswersAreReadAsPackageOAuth2Does(t *testing.T) {
	data, err := os.ReadFile("testdata/token_answers.json")
	require.NoError(t, err)
	var answers []struct {
		Name, Type, Body string
		Status           int
		Ours             int // expires_in, where package oauth2 fails; -1: it is not known
	}
	require.NoError(t, json.Unmarshal(data, &answers))
	for _, answer := range answers {
		t.Run(answer.Name, func(t *testing.T) {
			e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if answer.Type != "" {
					w.Header().Set("Content-Type", answer.Type)
				}
				if answer.Status != 0 {
					w.WriteHeader(answer.Status)
				}
				io.WriteString(w, answer.Body)
			})
			cfg := e.config()
			cfg.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
			want, wantErr := cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: "r-0"}).Token()
			got, gotErr := RefreshGrant(cfg)(ctx, refreshRequest)
			if answer.Ours != 0 {
				require.Error(t, wantErr, "package oauth2 has learnt that: take it out of the list")
				require.NoError(t, gotErr)
				if answer.Ours < 0 {
					require.True(t, got.Expiry.IsZero())
					return
				}
				require.EqualValues(t, answer.Ours, got.ExpiresIn)
				require.WithinDuration(t, time.Now().Add(time.Duration(answer.Ours)*time.Second), got.Expiry, time.Minute)
				return
			}
			if wantErr != nil {
				require.Error(t, gotErr)
				require.Nil(t, got)
				var a, b *oauth2.RetrieveError
				require.Equal(t, errors.As(wantErr, &a), errors.As(gotErr, &b))
				if a != nil {
					require.Equal(t, []any{a.ErrorCode, a.ErrorDescription, a.ErrorURI, string(a.Body), a.Response.StatusCode},
						[]any{b.ErrorCode, b.ErrorDescription, b.ErrorURI, string(b.Body), b.Response.StatusCode})
				}
				return
			}
			require.NoError(t, gotErr)
			require.Equal(t, []string{want.AccessToken, want.TokenType, want.RefreshToken}, []string{got.AccessToken, got.TokenType, got.RefreshToken})
			require.Equal(t, want.ExpiresIn, got.ExpiresIn)
			require.Equal(t, want.Expiry.IsZero(), got.Expiry.IsZero())
			require.WithinDuration(t, want.Expiry, got.Expiry, time.Minute)
			for _, name := range []string{"scope", "id_token", "expires_in", "n", "f", "x", "other"} {
				expected := want.Extra(name)
				if expected == "" { // what is missing in a form
					expected = nil
				}
				require.Equal(t, expected, got.Extra(name), name)
			}
		})
	}
}

// The grants that there are, and what each sends.
func TestTokenEndpointGrants(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Accept"), "application/json,") {
			t.Errorf("Accept: %s", r.Header.Get("Accept"))
		}
		fmt.Fprint(w, `{"access_token":"a-1","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:jwt"}`)
	})
	endpoint := &TokenEndpoint{URL: e.URL, ClientID: "i d", Auth: SecretPost("s+t"), Params: url.Values{"resource": {"https://api.example.com/v1"}}}
	token := func(token, kind string) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return token, kind, nil }
	}
	for name, c := range map[string]struct {
		fetch FetchFunc
		r     TokenRequest
		want  url.Values
	}{
		"refresh": {endpoint.Refresh(), refreshRequest, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"r-0"}}},
		"refresh with claims": {endpoint.Refresh(), TokenRequest{Previous: refreshRequest.Previous, Claims: `{"a":1}`, Scopes: []string{"a"}},
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"r-0"}, "claims": {`{"a":1}`}}},
		"client credentials": {endpoint.ClientCredentials("b", "a"), TokenRequest{}, url.Values{"grant_type": {"client_credentials"}, "scope": {"b a"}}},
		"client credentials, more": {endpoint.ClientCredentials("b"), TokenRequest{Scopes: []string{"a"}, Claims: `{"c":1}`},
			url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "claims": {`{"c":1}`}}},
		"JWT bearer": {endpoint.JWTBearer(func(context.Context, TokenRequest) (string, error) { return "x.y.z", nil }, "a"), TokenRequest{},
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"x.y.z"}, "scope": {"a"}}},
		"token exchange": {endpoint.TokenExchange(TokenExchange{Subject: token("st", "t1"), Actor: token("at", "t2"), Audience: []string{"x", "y"}, RequestedType: "t3", Scopes: []string{"a"}}),
			TokenRequest{}, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {"st"}, "subject_token_type": {"t1"},
				"actor_token": {"at"}, "actor_token_type": {"t2"}, "audience": {"x", "y"}, "requested_token_type": {"t3"}, "scope": {"a"}}},
		"authorization code": {endpoint.AuthorizationCode("c", "v", "http://127.0.0.1/cb"), TokenRequest{},
			url.Values{"grant_type": {"authorization_code"}, "code": {"c"}, "code_verifier": {"v"}, "redirect_uri": {"http://127.0.0.1/cb"}}},
		"device code": {endpoint.DeviceCode("d"), TokenRequest{},
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {"d"}}},
	} {
		t.Run(name, func(t *testing.T) {
			e.reset()
			got, err := c.fetch(t.Context(), c.r)
			require.NoError(t, err)
			require.Equal(t, "a-1", got.AccessToken)
			c.want["client_id"], c.want["client_secret"], c.want["resource"] = []string{"i d"}, []string{"s+t"}, []string{"https://api.example.com/v1"}
			require.Equal(t, []url.Values{c.want}, e.forms())
			known := RecordOf(got)
			require.Equal(t, []string{e.URL, "i d", "https://api.example.com/v1"}, []string{known.TokenURL, known.ClientID, known.Resource})
		})
	}
	for as, want := range map[string]string{"": "N_A", "Bearer": "Bearer"} {
		got, err := endpoint.TokenExchange(TokenExchange{Subject: token("st", "t1"), SendAs: as})(t.Context(), TokenRequest{})
		require.NoError(t, err)
		require.Equal(t, want, got.TokenType)
	}
}

func TestTokenEndpointThatIsSetWrongly(t *testing.T) {
	failing := func(context.Context) (string, string, error) { return "", "", errors.New("nobody is there") }
	for name, c := range map[string]struct {
		endpoint TokenEndpoint
		fetch    func(e *TokenEndpoint) FetchFunc
		says     string
	}{
		"no URL":           {TokenEndpoint{}, nil, "TokenEndpoint.URL"},
		"no scheme":        {TokenEndpoint{URL: "auth.example.com/token"}, nil, "TokenEndpoint.URL"},
		"control":          {TokenEndpoint{URL: "https://a\x7f/"}, nil, "TokenEndpoint.URL"},
		"plain http":       {TokenEndpoint{URL: "http://auth.example.com/token"}, nil, "plain http"},
		"grant in Params":  {TokenEndpoint{URL: "https://a/", Params: url.Values{"refresh_token": {"x"}}}, nil, `"refresh_token"`},
		"client in Params": {TokenEndpoint{URL: "https://a/", Params: url.Values{"client_id": {"x"}}}, nil, `"client_id"`},
		"no subject":       {TokenEndpoint{URL: "https://a/"}, func(e *TokenEndpoint) FetchFunc { return e.TokenExchange(TokenExchange{}) }, "Subject"},
		"failing subject":  {TokenEndpoint{URL: "https://a/"}, func(e *TokenEndpoint) FetchFunc { return e.TokenExchange(TokenExchange{Subject: failing}) }, "nobody is there"},
		"no assertion":     {TokenEndpoint{URL: "https://a/"}, func(e *TokenEndpoint) FetchFunc { return e.JWTBearer(nil) }, "JWTBearer"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := false
			c.endpoint.HTTPClient = &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
				sent = true
				return nil, errors.New("sent")
			})}
			fetch := c.endpoint.Refresh()
			if c.fetch != nil {
				fetch = c.fetch(&c.endpoint)
			}
			_, err := fetch(t.Context(), refreshRequest)
			require.ErrorContains(t, err, c.says)
			require.False(t, sent)
		})
	}
}

// Secrets go over plain http to this machine only, and not by a proxy.
func TestTokenEndpointOnPlainHTTP(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	to := func(address string) *http.Client {
		return &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.URL.Host = strings.TrimPrefix(address, "http://")
			return http.DefaultTransport.RoundTrip(r)
		})}
	}
	u, _ := url.Parse(e.URL)
	for _, c := range []struct {
		url   string
		allow bool
		proxy bool
		ok    bool
	}{
		{e.URL, false, false, true},
		{"http://localhost:" + u.Port(), false, false, true},
		{"http://auth.test/token", false, false, false},
		{"http://localhost.evil.test/token", false, false, false},
		{"http://auth.test/token", true, false, true},
		{"http://localhost:" + u.Port(), false, true, false},
	} {
		endpoint := &TokenEndpoint{URL: c.url, AllowPlaintext: c.allow, HTTPClient: to(e.URL)}
		if c.proxy {
			endpoint.HTTPClient = &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}
		}
		e.reset()
		_, err := endpoint.Refresh()(t.Context(), refreshRequest)
		if c.ok {
			require.NoError(t, err)
			require.Len(t, e.forms(), 1)
			continue
		}
		rejection, ok := errors.AsType[*Rejection](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, ReasonPlaintext, rejection.Reason)
		require.Empty(t, e.forms())
	}
}

// A refresh token goes to the endpoint that has issued it, for the client that it was issued to.
func TestRefreshTokenStaysWhereItBelongs(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	for _, c := range []struct {
		known Record
		proof Prover
		ok    bool
	}{
		{Record{}, nil, true},
		{Record{TokenURL: e.URL, ClientID: "c"}, nil, true},
		{Record{TokenURL: "https://former.test/token"}, nil, true},
		{Record{TokenURL: "https://other.test/token"}, nil, false},
		{Record{TokenURL: e.URL + "/"}, nil, false},
		{Record{ClientID: "d"}, nil, false},
		{Record{KeyThumbprint: "k"}, nil, false},
		{Record{KeyThumbprint: "k"}, &fakeProver{thumbprint: "l"}, false},
	} {
		c.known.Token = &oauth2.Token{AccessToken: "a", RefreshToken: "r"}
		data, err := c.known.Encode()
		require.NoError(t, err)
		saved, err := DecodeRecord(data)
		require.NoError(t, err)
		byHand := c.known.attached()
		for _, stored := range []*Record{saved, byHand} {
			store := newSharedStore(nil)
			store.putRecord(stored)
			e.reset()
			endpoint := &TokenEndpoint{URL: e.URL, ClientID: "c", Proof: c.proof, FormerURLs: []string{"https://former.test/token"}}
			src := &TokenSource{Fetch: endpoint.Refresh(), Store: store}
			_, err = src.Refresh(t.Context(), stored.Token)
			if c.ok {
				require.NoError(t, err)
				require.Len(t, e.forms(), 1)
				require.Equal(t, e.URL, store.record().TokenURL)
				continue
			}
			require.ErrorIs(t, err, ErrLoginRequired)
			require.Empty(t, e.forms())
			require.True(t, stored.isSame(store.record()), "nothing is lost")
			if c.known.KeyThumbprint != "" {
				rejection, ok := errors.AsType[*Rejection](err)
				require.True(t, ok)
				require.Equal(t, ReasonWrongKey, rejection.Reason)
				require.Equal(t, c.proof == nil, strings.Contains(err.Error(), "TokenEndpoint.Proof is nil; set it to that key"), err.Error())
			}
		}
	}
}

// A fakeProver counts its proofs, and knows the last nonce.
type fakeProver struct {
	thumbprint, nonce string
	proofs            int
}

func (p *fakeProver) Prove(req *http.Request, accessToken string) error {
	p.proofs++
	claims := fmt.Sprintf(`{"jti":"%d","nonce":%q,"token":%q}`, p.proofs, p.nonce, accessToken)
	req.Header.Set("DPoP", "e30."+base64.RawURLEncoding.EncodeToString([]byte(claims))+".c2ln")
	return nil
}
func (p *fakeProver) Learn(resp *http.Response) {
	if nonce := resp.Header.Get("DPoP-Nonce"); nonce != "" {
		p.nonce = nonce
	}
}
func (p *fakeProver) Thumbprint() string { return p.thumbprint }

// claimsIn returns what a fakeProver has proven.
func claimsIn(t *testing.T, r *http.Request) string {
	t.Helper()
	parts := strings.Split(r.Header.Get("DPoP"), ".")
	require.Len(t, parts, 3)
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	return string(claims)
}

func TestTokenEndpointProves(t *testing.T) {
	var proofs []string
	forEver := false
	e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
		claims := claimsIn(t, r)
		proofs = append(proofs, claims)
		w.Header().Set("DPoP-Nonce", fmt.Sprint("n", n))
		if forEver || !strings.Contains(claims, fmt.Sprintf(`"n%d"`, n-1)) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
			return
		}
		fmt.Fprint(w, `{"access_token":"a-1","token_type":"dpop"}`)
	})
	prover := &fakeProver{thumbprint: "k"}
	fetch := (&TokenEndpoint{URL: e.URL, Proof: prover}).Refresh()
	got, err := fetch(t.Context(), refreshRequest)
	require.NoError(t, err)
	require.Equal(t, []string{`{"jti":"1","nonce":"","token":""}`, `{"jti":"2","nonce":"n1","token":""}`}, proofs)
	require.Equal(t, "k", RecordOf(got).KeyThumbprint)
	_, err = fetch(t.Context(), TokenRequest{Previous: got})
	require.NoError(t, err)
	require.Len(t, proofs, 3, "the nonce of a success is learnt, too")

	forEver = true
	_, err = fetch(t.Context(), TokenRequest{Previous: got})
	require.Error(t, err)
	require.Len(t, proofs, 5, "two sends, however often the server asks")
}

// A server that gives the same nonce again, and again asks for it, would be asked for ever.
func TestTokenEndpointThatRepeatsItsNonce(t *testing.T) {
	sends := 0
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		sends++
		w.Header().Set("DPoP-Nonce", "n")
		w.WriteHeader(400)
		fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
	})
	fetch := (&TokenEndpoint{URL: e.URL, Proof: &fakeProver{}}).Refresh()
	for _, want := range []int{2, 3, 4} { // the first has no nonce yet
		_, err := fetch(t.Context(), refreshRequest)
		failure, ok := errors.AsType[*oauth2.RetrieveError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "use_dpop_nonce", failure.ErrorCode)
		require.Equal(t, want, sends)
	}
}

// A client whose Transport does not say to which request an answer belongs is good for a proof, too.
func TestTokenEndpointWhoseAnswersHaveNoRequest(t *testing.T) {
	sends := 0
	client := &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
		if sends++; sends == 1 {
			return &http.Response{StatusCode: 400, Header: http.Header{"Dpop-Nonce": {"n"}}, Body: io.NopCloser(strings.NewReader(`{"error":"use_dpop_nonce"}`))}, nil
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"access_token":"a","token_type":"DPoP"}`))}, nil
	})}
	_, err := (&TokenEndpoint{URL: "https://auth.test/", Proof: &fakeProver{}, HTTPClient: client}).Refresh()(t.Context(), refreshRequest)
	require.NoError(t, err)
	require.Equal(t, 2, sends)
}

func TestTokenEndpointThatIgnoresTheProof(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	_, err := (&TokenEndpoint{URL: e.URL, Proof: &fakeProver{}}).ClientCredentials()(t.Context(), TokenRequest{})
	require.ErrorContains(t, err, `type "bearer"`)
}

// A refresh gives no more than was granted, but where it is known to.
func TestRefreshForMore(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"access_token":"a-%d","scope":%q}`, len(r.PostForm.Get("scope")), r.PostForm.Get("scope"))
	})
	initial := (&oauth2.Token{AccessToken: "a", RefreshToken: "r"}).WithExtra(map[string]any{"scope": "read"})
	more := TokenRequest{Scopes: []string{"write"}}
	_, err := (&TokenSource{Fetch: (&TokenEndpoint{URL: e.URL}).Refresh(), Initial: initial}).Obtain(t.Context(), more)
	require.ErrorIs(t, err, ErrLoginRequired)
	require.Empty(t, e.forms())
	got, err := (&TokenSource{Fetch: (&TokenEndpoint{URL: e.URL, WidensOnRefresh: true}).Refresh(), Initial: initial}).Obtain(t.Context(), more)
	require.NoError(t, err)
	require.Equal(t, "a-10", got.AccessToken)
}

// A token for one resource is sent to the origin of that only (RFC 8707).
func TestTokenForAResourceGoesThereOnly(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	for resource, ok := range map[string]bool{"https://api.example.com/mcp": true, "https://API.example.com:443": true, "urn:x": true, "api": true, "api://client": true,
		"https://other.example.com": false, "http://api.example.com": false} {
		src := &TokenSource{Fetch: (&TokenEndpoint{URL: e.URL, Params: url.Values{"resource": {resource}}}).ClientCredentials()}
		sent := ""
		transport := &Transport{Schemes: []Scheme{&Bearer{Source: src}}, Base: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			sent = r.Header.Get("Authorization")
			return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
		})}
		for range 2 {
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
			if ok {
				require.NoError(t, err, resource)
				require.Equal(t, "Bearer a-1", sent)
			} else {
				require.ErrorContains(t, err, "resource", resource)
				require.Empty(t, sent)
			}
		}
	}
}

// An answer of any length costs no more than 1 MiB.
func TestTokenAnswerIsBounded(t *testing.T) {
	sent := 0
	block := bytes.Repeat([]byte(" "), 64<<10)
	base := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		body := readerFunc(func(p []byte) (int, error) {
			if sent > 1<<30 {
				return 0, io.EOF
			}
			n := copy(p, block)
			sent += n
			return n, nil
		})
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body), Request: r}, nil
	})
	_, err := (&TokenEndpoint{URL: "https://a.test/", HTTPClient: &http.Client{Transport: base}}).Refresh()(t.Context(), refreshRequest)
	require.ErrorContains(t, err, "could not be read")
	require.LessOrEqual(t, sent, 2<<20)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "0": 0, "-5": 0, "3": 3 * time.Second, "300": maxRetryAfter, "9223372036": maxRetryAfter,
		"9223372037": maxRetryAfter, "99999999999999999999999999": maxRetryAfter, "x": 0, "1.5": 0} {
		resp := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {value}}}
		require.Equal(t, want, retryAfter(resp), value)
	}
}

// An answer that breaks off is none, although what there is of it could be read.
func TestAnswerThatBreaksOff(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		issue(w)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	endpoint := &TokenEndpoint{URL: e.URL, HTTPClient: e.Client()}
	_, err := endpoint.Refresh()(t.Context(), refreshRequest)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, "broke off")
}

// A refresh token is not sent again by who has lost the lock meanwhile.
func TestRetryIsConfirmed(t *testing.T) {
	t.Parallel()
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	lost, calls := errors.New("the lock is lost"), 0
	ctx := context.WithValue(t.Context(), confirmKey{}, func(context.Context) error { calls++; return lost })
	_, err := (&TokenEndpoint{URL: e.URL}).Refresh()(ctx, refreshRequest)
	require.ErrorIs(t, err, lost)
	require.Equal(t, 1, calls)
	require.Len(t, e.forms(), 1)
}

// A proof that there is not fails the request before it is sent.
func TestProofThatFails(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) { issue(w) })
	_, err := (&TokenEndpoint{URL: e.URL, Proof: failingProver{}}).Refresh()(t.Context(), refreshRequest)
	require.ErrorIs(t, err, errNoProof)
	require.ErrorContains(t, err, "TokenEndpoint.Proof has failed")
	require.Empty(t, e.forms())
}

var errNoProof = errors.New("the key is locked")

type failingProver struct{}

func (failingProver) Prove(*http.Request, string) error { return errNoProof }
func (failingProver) Thumbprint() string                { return "x" }
func (failingProver) Learn(*http.Response)              {}

// What never succeeds is not tried again, and a server that asks for time gets it without callers who wait.
func TestTokenRequestsThatAreNotRepeated(t *testing.T) {
	down := errors.New("connection reset")
	again, _ := retryTokenRequest(t.Context(), nil, down)
	require.True(t, again)
	for _, err := range []error{errRecursion, fmt.Errorf("%w: %w", errRecursion, down), &Rejection{Reason: ReasonPlaintext, Err: down}} {
		again, _ := retryTokenRequest(t.Context(), nil, err)
		require.False(t, again, err)
	}
}

// Loopback is no loopback where a proxy gets the request; that of http.DefaultTransport counts as it is then.
func TestPlaintextToLoopbackByTheDefaultProxy(t *testing.T) { // not parallel: it replaces http.DefaultTransport
	var asked int
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked++; issue(w) }))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	http.DefaultTransport = &http.Transport{Proxy: http.ProxyURL(u)}
	_, err = (&TokenEndpoint{URL: "http://127.0.0.1:1/"}).Refresh()(t.Context(), refreshRequest)
	require.ErrorIs(t, err, errPlaintextEndpoint)
	require.Zero(t, asked)
}

// What it prints is who the client is, and no more.
func TestTokenEndpointPrintsTheClient(t *testing.T) {
	e := TokenEndpoint{ClientID: "client-1", Issuer: "https://issuer.test", URL: "https://issuer.test/?key=s3cret", Auth: SecretPost("s3cret")}
	text := fmt.Sprint(e)
	require.Contains(t, text, "client-1")
	require.Contains(t, text, "https://issuer.test")
	require.NotContains(t, text, "s3cret")
}

// Base is what our own client goes by, with its retries; a client of the context does not count then.
func TestTokenEndpointBase(t *testing.T) {
	t.Parallel()
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	sends := 0
	base := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		sends++
		return srv.Client().Transport.RoundTrip(r)
	})
	e := &TokenEndpoint{URL: bearer.TokenURL(), ClientID: "c", Base: base}
	srv.Inject("/token", 1, authtest.Reply(503, nil, ""))
	source := &TokenSource{Fetch: e.Refresh(), Initial: bearer.Login(), HTTPClient: &http.Client{Transport: roundTripFunc(nil)}}
	_, err := source.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, sends)
	e = &TokenEndpoint{URL: bearer.TokenURL(), ClientID: "c", Base: base, HTTPClient: srv.Client()}
	_, err = e.Refresh()(t.Context(), TokenRequest{Previous: bearer.Login()})
	require.NoError(t, err)
	require.Equal(t, 2, sends, "HTTPClient comes first")
}

// Who does not want to wait any longer for another attempt has the client say no more who it is: that may cost a signature.
func TestTokenRequestIsNotMadeAgainInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			time.AfterFunc(time.Millisecond, func() { cancel(errors.New("enough")) })
			return responseTo(req, 503), nil
		})
		prover := &fakeProver{}
		_, err := (&TokenEndpoint{URL: "https://auth.test/", Base: base, Proof: prover}).ClientCredentials()(ctx, TokenRequest{})
		require.ErrorContains(t, err, "enough")
		require.Equal(t, 1, prover.proofs)
	})
}

// A failure that may pass is tried four times within a second, which callers can wait for.
func TestTokenRequestIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sends, start := 0, time.Now()
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends++
			return responseTo(req, 503), nil
		})
		_, err := (&TokenEndpoint{URL: "https://auth.test/", Base: base}).ClientCredentials()(t.Context(), TokenRequest{})
		require.Error(t, err)
		require.Equal(t, 4, sends)
		require.Equal(t, 700*time.Millisecond, time.Since(start))
	})
}

// Validate says before the first token what is wrong.
func TestValidateTokenEndpoint(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for _, good := range []*TokenEndpoint{
		{URL: "https://a.test/token"}, {URL: "http://127.0.0.1/token"}, {URL: "http://a.test/token", AllowPlaintext: true},
		{URL: "https://a.test/token", ClientID: "c", Auth: &PrivateKeyJWT{Signer: key}, Params: url.Values{"resource": {"https://a.test"}}},
		{URL: "https://a.test/token", ClientID: "c", Auth: AssertionFile("nowhere")},
	} {
		require.NoError(t, good.Validate())
	}
	for want, e := range map[string]*TokenEndpoint{
		"TokenEndpoint.URL is not": {},
		"TokenEndpoint.URL is not an http or https URL (in a config of package oauth2: TokenURL)": {URL: "/token"},
		"TokenEndpoint.URL is not an http or":                                                     {URL: "ftp://a.test/token"},
		"plain http":                                                                              {URL: "http://a.test/token"},
		`TokenEndpoint.Params has "client_id"`:                                                    {URL: "https://a.test/token", Params: url.Values{"client_id": {"c"}}},
		"TokenEndpoint.ClientID is empty":                                                         {URL: "https://a.test/token", Auth: SecretBasic(secret)},
		"PrivateKeyJWT":                                                                           {URL: "https://a.test/token", ClientID: "c", Auth: &PrivateKeyJWT{}},
	} {
		err := e.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), secret)
	}
	require.ErrorContains(t, (*TokenSource)(nil).Validate(), "is nil")
}

// A server that calls JSON text, or a gateway in front of it, must not cost the refresh token that is in there, nor hide that the old one is
// good for nothing any more.
func TestTokenAnswersInJSONAreReadWhateverTheyAreCalled(t *testing.T) {
	for _, kind := range []string{"text/plain; charset=utf-8", "application/x-www-form-urlencoded", "text/html"} {
		answers := []string{
			" {\"access_token\":\"a-1\",\"token_type\":\"bearer\",\"refresh_token\":\"r-1\",\"expires_in\":3600,\"scope\":\"read\"}\n",
			`{"error":"invalid_grant"}`,
		}
		e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			if n > 1 {
				w.WriteHeader(http.StatusBadRequest)
			}
			io.WriteString(w, answers[min(n, 2)-1])
		})
		src := &TokenSource{Fetch: RefreshGrant(e.config()), Initial: refreshRequest.Previous}
		got, err := src.Refresh(t.Context(), refreshRequest.Previous)
		require.NoError(t, err, kind)
		require.Equal(t, []string{"a-1", "r-1"}, []string{got.AccessToken, got.RefreshToken})
		require.Equal(t, "read", got.Extra("scope"))
		require.WithinDuration(t, time.Now().Add(time.Hour), got.Expiry, time.Minute)

		for range 2 {
			_, err = src.Refresh(t.Context(), nil)
			require.ErrorIs(t, err, ErrLoginRequired, kind)
		}
		require.Len(t, e.forms(), 2, "what was refused is not sent again")
	}
}
