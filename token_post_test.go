package authretry

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A code is sent once, whatever becomes of it; a form that may be sent again is.
func TestCodesAreSentOnce(t *testing.T) {
	for _, status := range []int{500, 503, 429} {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		endpoint := &TokenEndpoint{URL: e.URL, ClientID: "c"}
		for name, fetch := range map[string]FetchFunc{"code": endpoint.AuthorizationCode("c", "v", ""), "device code": endpoint.DeviceCode("d")} {
			e.reset()
			_, err := fetch(t.Context(), TokenRequest{})
			require.Error(t, err)
			require.Len(t, e.forms(), 1, "%s, %d", name, status)
		}
	}
	lost := newTokenEndpoint(t, func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := (&TokenEndpoint{URL: lost.URL}).AuthorizationCode("c", "v", "")(t.Context(), TokenRequest{})
	require.Error(t, err)
	require.Len(t, lost.forms(), 1, "the server may have issued a token that was lost on the way")
}

// Post speaks in the client's name, and its answer is decoded.
func TestTokenEndpointPost(t *testing.T) {
	t.Parallel()
	e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			if n == 1 {
				w.WriteHeader(503)
				return
			}
			fmt.Fprint(w, `{"request_uri":"urn:x"}`)
		case "/error":
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"invalid_request"}`)
		case "/elsewhere":
			http.Redirect(w, r, "/busy", http.StatusTemporaryRedirect)
		case "/none":
		}
	})
	endpoint := &TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "i d", Auth: SecretPost("s+t"), Params: url.Values{"resource": {"https://api.example.com/"}}}
	var answer struct {
		URI string `json:"request_uri"`
	}
	form := url.Values{"scope": {"read"}}
	require.NoError(t, endpoint.Post(t.Context(), e.URL+"/busy", form, &answer))
	require.Equal(t, "urn:x", answer.URI)
	sent := url.Values{"scope": {"read"}, "client_id": {"i d"}, "client_secret": {"s+t"}}
	require.Equal(t, []url.Values{sent, sent}, e.forms())
	require.Equal(t, url.Values{"scope": {"read"}}, form)

	require.NoError(t, endpoint.Post(t.Context(), e.URL+"/none", nil, nil))
	require.ErrorIs(t, endpoint.Post(t.Context(), e.URL+"/none", nil, &answer), errUnreadableAnswer)
	r, ok := errors.AsType[*oauth2.RetrieveError](endpoint.Post(t.Context(), e.URL+"/error", nil, &answer))
	require.True(t, ok)
	require.Equal(t, "invalid_request", r.ErrorCode)
	e.reset()
	require.Error(t, endpoint.Post(t.Context(), e.URL+"/elsewhere", nil, &answer))
	require.Len(t, e.forms(), 1, "the redirect is not followed")
	for to, says := range map[string]string{"http://auth.example.com/par": "plain http", "file:///etc/passwd": "not an http or https URL", "": "not an http or https URL"} {
		require.ErrorContains(t, endpoint.Post(t.Context(), to, nil, nil), says)
	}
}

// A login that is ended is ended at the authorization server, too.
func TestLogoutRevokes(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.PostForm.Get("token") {
		case "a-unsupported", "r-unsupported":
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"unsupported_token_type"}`)
		case "r-failing":
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"r-failing"}`)
		}
	})
	endpoint := &TokenEndpoint{URL: e.URL + "/token", ClientID: "c"}
	revoked := func(value, hint string) url.Values {
		return url.Values{"token": {value}, "token_type_hint": {hint}, "client_id": {"c"}}
	}
	for name, c := range map[string]struct {
		token *oauth2.Token
		sent  []url.Values
		fails string
	}{
		"both":            {&oauth2.Token{AccessToken: "a", RefreshToken: "r"}, []url.Values{revoked("r", "refresh_token"), revoked("a", "access_token")}, ""},
		"access token":    {&oauth2.Token{AccessToken: "a"}, []url.Values{revoked("a", "access_token")}, ""},
		"refresh token":   {&oauth2.Token{RefreshToken: "r"}, []url.Values{revoked("r", "refresh_token")}, ""},
		"not supported":   {&oauth2.Token{AccessToken: "a-unsupported", RefreshToken: "r"}, []url.Values{revoked("r", "refresh_token"), revoked("a-unsupported", "access_token")}, ""},
		"refresh not":     {&oauth2.Token{RefreshToken: "r-unsupported"}, []url.Values{revoked("r-unsupported", "refresh_token")}, "unsupported_token_type"},
		"fails":           {&oauth2.Token{AccessToken: "a", RefreshToken: "r-failing"}, []url.Values{revoked("r-failing", "refresh_token"), revoked("a", "access_token")}, "invalid_client"},
		"of another":      {(&oauth2.Token{RefreshToken: "r-0"}).WithExtra(map[string]any{recordKey: &Record{TokenURL: "https://other.example.com/token"}}), nil, "another token endpoint"},
		"of another's":    {(&oauth2.Token{RefreshToken: "r-0"}).WithExtra(map[string]any{recordKey: &Record{ClientID: "other"}}), nil, "another client"},
		"of another key":  {(&oauth2.Token{RefreshToken: "r-0"}).WithExtra(map[string]any{recordKey: &Record{KeyThumbprint: "lost"}}), []url.Values{revoked("r-0", "refresh_token")}, ""},
		"nothing to lose": {nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e.reset()
			src := &TokenSource{Initial: c.token, Revoke: endpoint.Revocation(e.URL + "/revoke")}
			if c.token != nil && c.token.AccessToken != "" {
				_, err := src.Token()
				require.NoError(t, err)
			}
			err := src.Logout(t.Context())
			require.Equal(t, c.sent, e.forms())
			if c.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fails)
				require.NotContains(t, err.Error(), "r-failing")
			}
			_, err = src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
		})
	}
	require.NoError(t, endpoint.Revocation(e.URL)(t.Context(), nil))
}
