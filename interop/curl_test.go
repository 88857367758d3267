package interop

import (
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// TestCurl makes the same requests by curl and by us, and compares what arrived at the server.
func TestCurl(t *testing.T) {
	t.Run("Apache", func(t *testing.T) {
		s := servers.Apache(t)
		for _, space := range []string{"basic", "digest", "short", "once", "ordered", "dav"} {
			t.Run(space, func(t *testing.T) { compareWithCurl(t, s, "/"+space+"/index.html") })
		}
	})
	t.Run("nginx", func(t *testing.T) {
		s := servers.Nginx(t, "http://127.0.0.1:9/")
		for _, space := range []string{"basic", "quoted"} {
			t.Run(space, func(t *testing.T) { compareWithCurl(t, s, "/"+space+"/") })
		}
	})
	t.Run("lighttpd", func(t *testing.T) {
		s := servers.Lighttpd(t)
		for _, space := range []string{"both", "md5", "sha256"} {
			t.Run(space, func(t *testing.T) { compareWithCurl(t, s, "/"+space+"/") })
		}
	})
	t.Run("Tomcat", func(t *testing.T) {
		compareWithCurl(t, servers.Tomcat(t), "/index.html")
	})
	t.Run("Registry", func(t *testing.T) {
		compareWithCurl(t, servers.Registry(t), "/v2/")
	})
	t.Run("WEBrick", func(t *testing.T) {
		compareWithCurl(t, servers.WEBrick(t), "/auth/")
	})
}

func compareWithCurl(t *testing.T, s *servers.Server, path string) {
	recorder := servers.Record(t, s.URL)
	url := recorder.URL + path
	good := servers.Username + ":" + servers.Password
	wrong := servers.Username + ":wrong"

	// A first request: both ask once, answer once, and are let in.
	require.Equal(t, []string{"200"}, curl(t, "--anyauth", "--user", good, url))
	byCurl := recorder.Take()
	client := newClient(t, nil, both()...)
	getOK(t, client, url)
	byUs := recorder.Take()
	require.Equal(t, schemesOf(byCurl), schemesOf(byUs))
	require.Len(t, byUs, 2)
	require.Equal(t, byCurl[1].Params["algorithm"], byUs[1].Params["algorithm"])
	require.Equal(t, byCurl[1].Params["qop"], byUs[1].Params["qop"])
	require.Equal(t, byCurl[1].Params["realm"], byUs[1].Params["realm"])
	require.Equal(t, byCurl[1].Params["uri"], byUs[1].Params["uri"])

	// Requests that follow: curl asks again each time, we do not.
	require.Equal(t, []string{"200", "200"}, curl(t, "--anyauth", "--user", good, url, url))
	require.Len(t, recorder.Take(), 4)
	for range 2 {
		getOK(t, client, url)
	}
	byUs = recorder.Take()
	require.Len(t, byUs, 2)
	require.NotContains(t, schemesOf(byUs), "-")

	// A wrong password: both try it once, and hand the refusal back.
	require.Equal(t, []string{"401"}, curl(t, "--anyauth", "--user", wrong, url))
	byCurl = recorder.Take()
	client = newClient(t, nil,
		&authretry.Digest{Username: servers.Username, Password: "wrong"},
		&authretry.Basic{Username: servers.Username, Password: "wrong"})
	resp, _ := get(t, client, url)
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	byUs = recorder.Take()
	require.Equal(t, schemesOf(byCurl), schemesOf(byUs))
	require.Len(t, byUs, 2)

	var rejection *authretry.Rejection
	require.ErrorAs(t, authretry.Explain(resp), &rejection)
}
