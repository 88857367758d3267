package interop

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// nginx sends a realm's quotes unescaped. Explain shows it as the server meant it.
func TestNginxQuotedRealm(t *testing.T) {
	s := servers.Nginx(t, "http://127.0.0.1:9/")
	recorder := servers.Record(t, s.URL)
	resp, _ := get(t, newClient(t, nil, &authretry.Basic{Username: servers.Username, Password: "wrong"}), recorder.URL+"/quoted/")
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	challenges, err := authretry.ParseChallenges(resp.Header.Values("WWW-Authenticate"))
	require.Error(t, err, "the damage is reported")
	require.Len(t, challenges, 1)
	require.Equal(t, `lab "quoted" realm`, challenges[0].Params.Get("realm"))
	require.Len(t, recorder.Take(), 2)
}

// A redirect to another port leaves the origin: the credentials stay behind, also if that port asks for them.
func TestNginxRedirect(t *testing.T) {
	var mu sync.Mutex
	var arrived []string // guarded by mu
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrived = append(arrived, req.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Basic realm="`+servers.Realm+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	s := servers.Nginx(t, other.URL+"/")
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, both()...)
	for range 2 {
		resp, _ := get(t, client, recorder.URL+"/away/")
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		require.Equal(t, other.URL+"/", resp.Request.URL.String())
		var rejection *authretry.Rejection
		require.ErrorAs(t, authretry.Explain(resp), &rejection)
		require.Equal(t, authretry.ReasonRedirected, rejection.Reason)
	}
	require.Equal(t, []string{"", ""}, arrived)
	require.Equal(t, []string{"-", "Basic", "Basic"}, schemesOf(recorder.Take()))
}

func TestLighttpd(t *testing.T) {
	s := servers.Lighttpd(t)
	for space, algorithm := range map[string]string{"both": "SHA-256", "sha256": "SHA-256", "md5": "MD5"} {
		t.Run(space, func(t *testing.T) {
			recorder := servers.Record(t, s.URL)
			client := newClient(t, nil, digest())
			for range 10 {
				_, body := getOK(t, client, recorder.URL+"/"+space+"/")
				require.Equal(t, "this is "+space+"\n", body)
			}
			exchanges := recorder.Take()
			require.Equal(t, append([]string{"-"}, slices.Repeat([]string{"Digest"}, 10)...), schemesOf(exchanges))
			for _, e := range exchanges[1:] {
				require.Equal(t, algorithm, e.Params["algorithm"])
			}
		})
	}
}

func TestLighttpdWrongPassword(t *testing.T) {
	s := servers.Lighttpd(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, &authretry.Digest{Username: servers.Username, Password: "wrong"})
	for range 2 {
		resp, _ := get(t, client, recorder.URL+"/both/")
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		require.Equal(t, []string{"-", "Digest"}, schemesOf(recorder.Take()))
	}
}

func TestTomcat(t *testing.T) {
	s := servers.Tomcat(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, digest())
	for range 10 {
		_, body := getOK(t, client, recorder.URL+"/index.html")
		require.Equal(t, "this is tomcat\n", body)
	}
	exchanges := recorder.Take()
	require.Equal(t, append([]string{"-"}, slices.Repeat([]string{"Digest"}, 10)...), schemesOf(exchanges))
	for _, e := range exchanges[1:] {
		require.Equal(t, "SHA-256", e.Params["algorithm"])
	}
}

func TestRegistry(t *testing.T) {
	s := servers.Registry(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, both()...)

	// A push begins with a POST, below the path that was asked for first.
	for range 3 {
		_, body := getOK(t, client, recorder.URL+"/v2/")
		require.Equal(t, "{}", body)
	}
	resp, err := client.Post(recorder.URL+"/v2/lab/blobs/uploads/", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	require.Equal(t, []string{"-", "Basic", "Basic", "Basic", "Basic"}, schemesOf(recorder.Take()))
}

// WEBrick says nextnonce with every response: the nonce in use, or another once a second has gone by.
func TestWEBrickNextNonce(t *testing.T) {
	s := servers.WEBrick(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, digest())
	getOK(t, client, recorder.URL+"/auth/")
	exchanges := recorder.Take()
	require.Equal(t, []string{"-", "Digest"}, schemesOf(exchanges))

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	counts := nonceCounts(t, exchanges)
	for len(counts) < 3 {
		require.False(t, time.Now().After(deadline), "no new nonce")
		<-tick.C
		_, body := getOK(t, client, recorder.URL+"/auth/")
		require.Equal(t, "this is auth\n", body)
		taken := recorder.Take()
		require.Equal(t, []string{"Digest"}, schemesOf(taken))
		exchanges = append(exchanges, taken...)
		counts = nonceCounts(t, exchanges)
	}
	require.Greater(t, len(exchanges), len(counts)+1, "no nonce has served twice")
}

// WEBrick hashes the request's body, and so must the client if auth-int is all there is.
func TestWEBrickAuthInt(t *testing.T) {
	s := servers.WEBrick(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, digest())
	for range 3 {
		resp, err := client.Post(recorder.URL+"/auth-int/", "text/plain", strings.NewReader("to be hashed"))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%v", authretry.Explain(resp))
		require.NoError(t, resp.Body.Close())
	}
	exchanges := recorder.Take()
	require.Equal(t, []string{"-", "Digest", "Digest", "Digest"}, schemesOf(exchanges))
	for _, e := range exchanges[1:] {
		require.Equal(t, "auth-int", e.Params["qop"])
		require.Equal(t, int64(len("to be hashed")), e.Body)
	}
}
