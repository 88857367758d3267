package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// returning returns a func that has these credentials for every registry.
func returning(username, password string) authretry.CredentialsFunc {
	return func(context.Context, authretry.CredentialsRequest) (string, string, error) {
		return username, password, nil
	}
}

func TestHowTokensAreAskedFor(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	for name, c := range map[string]struct {
		guard  *authtest.Registry
		scheme *registry.Scheme
		header string   // Authorization of the last token request
		forms  []string // grant_type of each token request; "" for GET
	}{
		"anonymous":                       {&authtest.Registry{}, &registry.Scheme{}, "", []string{""}},
		"no credentials for it":           {&authtest.Registry{}, &registry.Scheme{Credentials: login("https://another.example.com")}, "", []string{""}},
		"password":                        {&authtest.Registry{Username: user, Password: password}, &registry.Scheme{Credentials: returning(user, password)}, basic, []string{""}},
		"password by POST":                {&authtest.Registry{Username: user, Password: password}, &registry.Scheme{Credentials: returning(user, password), PostPassword: true}, "", []string{"password"}},
		"password by POST, which is none": {&authtest.Registry{Username: user, Password: password, NoPost: true}, &registry.Scheme{Credentials: returning(user, password), PostPassword: true}, basic, []string{"password", ""}},
		"identity token":                  {&authtest.Registry{Username: user, IdentityToken: "identity"}, &registry.Scheme{Credentials: returning("<token>", "identity")}, "", []string{"refresh_token"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := authtest.NewServer(c.guard)
			defer srv.Close()
			client := &http.Client{Transport: authretry.New(c.scheme)}
			for _, repository := range []string{"a", "b"} {
				resp, err := client.Get(srv.URL + "/v2/" + repository + "/manifests/latest")
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 200, resp.StatusCode, "%v", authretry.Explain(resp))
			}
			requests := srv.TokenRequests()
			require.Len(t, requests, len(c.forms)+1, "how a server wants to be asked is learnt once")
			last := requests[len(requests)-1]
			require.Equal(t, c.header, last.Header.Get("Authorization"))
			require.Equal(t, "authtest", last.Form.Get("service"))
			for i, form := range c.forms {
				require.Equal(t, form, requests[i].GrantType)
			}
			if last.GrantType != "" {
				require.Equal(t, "authretry", last.Form.Get("client_id"))
			}
		})
	}
}

func TestIdentityTokenWherePOSTIsNone(t *testing.T) {
	guard := &authtest.Registry{Username: user, IdentityToken: "identity-secret", NoPost: true}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: returning("<token>", "identity-secret")})}
	_, err := client.Get(srv.URL + "/v2/a/manifests/latest")
	require.ErrorContains(t, err, "takes no identity tokens")
	require.NotContains(t, err.Error(), "identity-secret")
	for _, r := range srv.TokenRequests() {
		require.Empty(t, r.Header.Get("Authorization"), "never as a password")
	}
}

// A wrong password is tried once, whatever number of repositories wants a token, until half a minute has passed or it is another.
func TestWrongPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := &authtest.Registry{Username: user, Password: password}
		srv := authtest.NewPipeServer(guard)
		defer srv.Close()
		var given atomic.Value
		given.Store("wrong")
		s := &registry.Scheme{HTTPClient: srv.Client(), Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return user, given.Load().(string), nil
		}}
		transport := authretry.New(s)
		transport.Base = srv.Client().Transport
		get := func(repository string) (*http.Response, error) {
			req, err := http.NewRequest("GET", srv.URL+"/v2/"+repository+"/manifests/latest", nil)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			if err == nil {
				require.NoError(t, resp.Body.Close())
			}
			return resp, err
		}
		for i := range 10 {
			_, err := get(fmt.Sprint("a", i))
			require.ErrorIs(t, err, authretry.ErrLoginRequired)
			require.ErrorContains(t, err, "refuses the user name or the password")
			var why *authretry.Rejection
			require.ErrorAs(t, err, &why)
			require.Equal(t, authretry.ReasonNoCredentials, why.Reason)
			require.NotContains(t, err.Error(), "wrong")
		}
		require.Len(t, srv.TokenRequests(), 1)
		time.Sleep(time.Minute)
		_, err := get("b")
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.Len(t, srv.TokenRequests(), 2)
		given.Store(password) // as after docker login
		resp, err := get("c")
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
	})
}

func TestNoTokenWithoutCredentials(t *testing.T) {
	guard := &authtest.Registry{Username: user, Password: password}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{})}
	resp, err := client.Get(srv.URL + "/v2/a/manifests/latest")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 401, resp.StatusCode)
	require.ErrorContains(t, authretry.Explain(resp), "without credentials this is not allowed, or does not exist")
}

func TestCredentialsThatCannotBeHad(t *testing.T) {
	srv := authtest.NewServer(&authtest.Registry{})
	defer srv.Close()
	for text, f := range map[string]authretry.CredentialsFunc{
		"the keychain is locked": func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return "", "", errors.New("the keychain is locked")
		},
		"colon":             returning("a:b", "secret-word"),
		"control character": returning("a", "secret-word\n"),
	} {
		client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: f})}
		_, err := client.Get(srv.URL + "/v2/a/manifests/latest")
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), "secret-word")
	}
	require.Empty(t, srv.TokenRequests())
}

// The credentials are asked for with what is wanted, and with nothing of the caller's.
func TestCredentialsRequest(t *testing.T) {
	srv := authtest.NewServer(&authtest.Registry{})
	defer srv.Close()
	type key struct{}
	var got authretry.CredentialsRequest
	s := &registry.Scheme{Credentials: func(ctx context.Context, r authretry.CredentialsRequest) (string, string, error) {
		got = r
		require.Nil(t, ctx.Value(key{}))
		_, limited := ctx.Deadline()
		require.True(t, limited)
		return "", "", authretry.ErrUnsupportedChallenge
	}}
	transport := &authretry.Transport{Schemes: []authretry.Scheme{s}, Account: func(*http.Request) string { return "Nala" }}
	req, err := http.NewRequestWithContext(context.WithValue(t.Context(), key{}, "x"), "GET", srv.URL+"/v2/a/manifests/latest", nil)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "Nala", got.Account)
	require.Equal(t, srv.URL, got.Origin)
	require.Equal(t, "Bearer", got.Challenge.Scheme)
	require.Equal(t, "repository:a:pull", got.Challenge.Params.Get("scope"))
}

// Two accounts have a token each, and Forget ends what there was of one.
func TestAccounts(t *testing.T) {
	guard := &authtest.Registry{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	s := &registry.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		return r.Account, password, nil
	}}
	transport := &authretry.Transport{Schemes: []authretry.Scheme{s}, Account: func(r *http.Request) string { return r.Header.Get("X-User") }}
	get := func(account string) string {
		req, err := http.NewRequest("GET", srv.URL+"/v2/a/manifests/latest", nil)
		require.NoError(t, err)
		req.Header.Set("X-User", account)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		requests := srv.Requests()
		return requests[len(requests)-1].Header.Get("Authorization")
	}
	nala, simba := get("Nala"), get("Simba")
	require.NotEqual(t, nala, simba)
	require.Equal(t, nala, get("Nala"))
	transport.Forget("Nala")
	require.NotEqual(t, nala, get("Nala"))
	require.Equal(t, simba, get("Simba"))
	var users []string
	for _, r := range srv.TokenRequests() {
		name, _, _ := (&http.Request{Header: r.Header}).BasicAuth()
		users = append(users, name)
	}
	require.Equal(t, []string{"Nala", "Simba", "Nala"}, users)
}

// However many ask for a new repository at once, there is one token request.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t, &authtest.Registry{})
	var wg sync.WaitGroup
	var bad atomic.Int32
	for range 100 {
		wg.Go(func() {
			resp, err := l.client.Get(l.server.URL + "/v2/a/manifests/latest")
			if err != nil || resp.StatusCode != 200 {
				bad.Add(1)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	require.Zero(t, bad.Load())
	require.Len(t, l.server.TokenRequests(), 1)
}

func TestHostileTokenServers(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"token":"`)
		block := []byte(strings.Repeat("a", 1<<20))
		for range 1 << 10 { // 1 GiB
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	say := func(status int, header, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", header)
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		why    string
	}{
		"1 GiB":                   {endless, "has more than 1048576 bytes"},
		"HTML":                    {say(200, "text/html", "<html>a-secret-page</html>"), "not the JSON of a token"},
		"nothing":                 {say(200, "application/json", ""), "not the JSON of a token"},
		"a list":                  {say(200, "application/json", "[]"), "not the JSON of a token"},
		"no token":                {say(200, "application/json", `{"expires_in":60}`), "has no token"},
		"a number":                {say(200, "application/json", `{"token":5}`), "not the JSON of a token"},
		"an empty token":          {say(200, "application/json", `{"token":""}`), "has no token"},
		"a line break":            {say(200, "application/json", `{"token":"a\r\nX-Evil: 1"}`), "character that cannot be sent"},
		"a control character":     {say(200, "application/json", `{"token":"a\u0000b"}`), "character that cannot be sent"},
		"a letter beyond ASCII":   {say(200, "application/json", `{"token":"ä"}`), "character that cannot be sent"},
		"a token of 65 KiB":       {say(200, "application/json", `{"token":"`+strings.Repeat("a", 65<<10)+`"}`), "more than 65536 bytes"},
		"server error":            {say(500, "text/plain", "a-secret-page"), "answered 500"},
		"too many requests":       {say(429, "text/plain", ""), "answered 429"},
		"bad request":             {say(400, "application/json", `{"error":"a-secret-code"}`), "answered 400"},
		"refused as OAuth has it": {say(400, "application/json", `{"error":"invalid_grant"}`), "refuses the user name or the password (400)"},
		"no answer":               {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "could not be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := httptest.NewServer(c.answer)
			defer tokens.Close()
			srv := httptest.NewServer(&naming{realm: tokens.URL})
			defer srv.Close()
			for _, own := range []*http.Client{nil, {Transport: &http.Transport{DisableKeepAlives: true}}} {
				client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: always(t), HTTPClient: own})}
				_, err := client.Get(srv.URL + "/v2/a/manifests/latest")
				if own != nil && name == "1 GiB" {
					require.ErrorContains(t, err, "the token server's answer is too long")
				} else {
					require.ErrorContains(t, err, c.why)
				}
				require.NotContains(t, err.Error(), "a-secret")
				require.NotContains(t, err.Error(), password)
			}
		})
	}
}

// A token server that does not answer holds nobody up for more than ten seconds.
func TestTokenServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hanging := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})}
		n := &naming{realm: "/token"}
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			n.ServeHTTP(w, req)
			return w.Result(), nil
		})
		transport := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&registry.Scheme{HTTPClient: hanging}}}
		req, err := http.NewRequest("GET", "https://registry.example.com/v2/", nil)
		require.NoError(t, err)
		start := time.Now()
		_, err = transport.RoundTrip(req)
		require.ErrorContains(t, err, "it took too long")
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		stamp := func(age time.Duration) string { return now.Add(-age).UTC().Format(time.RFC3339) }
		for _, c := range []struct {
			expires, issued string
			clock           time.Duration // how far the server's is ahead; 0: it says no Date
			want            time.Duration
		}{
			{"", "", 0, time.Minute},
			{"300", "", 0, 5 * time.Minute},
			{`"300"`, "", 0, 5 * time.Minute},
			{"300.5", "", 0, 300*time.Second + 500*time.Millisecond},
			{"2", "", 0, 2 * time.Second},
			{"1", "", 0, time.Second},
			{"0", "", 0, time.Minute},
			{"-1", "", 0, time.Minute},
			{"null", "", 0, time.Minute},
			{"1e18", "", 0, 24 * time.Hour},
			{"1e400", "", 0, time.Minute},
			{`"NaN"`, "", 0, time.Minute},
			{`"soon"`, "", 0, time.Minute},
			{"[]", "", 0, time.Minute},
			{"300", `"` + stamp(0) + `"`, 0, 5 * time.Minute},
			{"300", `"` + stamp(100*time.Second) + `"`, 0, 200 * time.Second},
			{"300", `"` + stamp(-time.Hour) + `"`, 0, 5 * time.Minute},
			{"300", `"` + stamp(time.Hour) + `"`, 0, 5 * time.Minute},
			{"300", `"yesterday"`, 0, 5 * time.Minute},
			{"300", "5", 0, 5 * time.Minute},
			{"300", `"` + stamp(100*time.Second-time.Hour) + `"`, time.Hour, 200 * time.Second},
			{"300", `"` + stamp(100*time.Second+time.Hour) + `"`, -time.Hour, 200 * time.Second},
		} {
			fields := map[string]json.RawMessage{"token": json.RawMessage(`"t"`)}
			if c.expires != "" {
				fields["expires_in"] = json.RawMessage(c.expires)
			}
			if c.issued != "" {
				fields["issued_at"] = json.RawMessage(c.issued)
			}
			body, err := json.Marshal(fields)
			require.NoError(t, err)
			resp := &http.Response{StatusCode: 200, Header: http.Header{}}
			if c.clock != 0 {
				resp.Header.Set("Date", now.Add(c.clock).UTC().Format(http.TimeFormat))
			}
			token, err := registry.ReadAnswer(resp, body)
			require.NoError(t, err)
			require.Equal(t, c.want, token.Expiry.Sub(now), "%+v", c)
		}
	})
}

func TestScopes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"repository:a:pull":                   "repository:a:pull",
		"repository:a:push,pull":              "repository:a:pull,push",
		"repository:a:pull,pull,push,":        "repository:a:pull,push",
		"  repository:b:pull  repository:a:*": "repository:a:* repository:b:pull",
		"repository:a:pull repository:a:push": "repository:a:pull,push",
		"repository:host:5000/a/b:pull":       "repository:host:5000/a/b:pull",
		"repository(plugin):a/b:pull":         "repository(plugin):a/b:pull",
		"registry:catalog:*":                  "registry:catalog:*",
		"aws":                                 "aws",
		"a:b":                                 "a:b",
		":":                                   ":",
		"::":                                  ":",
	} {
		list, err := registry.ParseScope(text)
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(list, " "), text)
	}
	for _, text := range []string{"repository:a\x7f:pull", `repository:"a":pull`, `repository:\:pull`, "repository:ä:pull", strings.Repeat("a", 9000), manyScopes(65)} {
		_, err := registry.ParseScope(text)
		require.Error(t, err, text)
	}
}

func TestPlaces(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/":                                    "/v2/",
		"/v2":                                     "/v2",
		"/v2/_catalog":                            "/v2/_catalog",
		"/v2/a/manifests/latest":                  "repository:a",
		"/v2/a/b/c/manifests/sha256:0":            "repository:a/b/c",
		"/v2/a/blobs/sha256:0":                    "repository:a",
		"/v2/a/b/blobs/uploads/":                  "repository:a/b",
		"/v2/a/b/blobs/uploads":                   "repository:a/b",
		"/v2/a/blobs/uploads/1-2":                 "repository:a",
		"/v2/a/tags/list":                         "repository:a",
		"/v2/a/referrers/sha256:0":                "repository:a",
		"/v2/manifests/manifests/latest":          "repository:manifests",
		"/v2/blobs/uploads/blobs/uploads/1":       "repository:blobs/uploads",
		"/v2/manifests/latest":                    "/v2/manifests/latest",
		"/service/token":                          "/service/token",
		"/v2/" + strings.Repeat("a", 1024) + "/x": "",
	} {
		require.Equal(t, want, registry.PlaceOf(path), path)
	}
}
