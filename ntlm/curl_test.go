package ntlm_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What curl and the Scheme send to the same server, request by request.
func TestBesideCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil && os.Getenv("AUTHRETRY_INTEROP") == "require" {
		t.Fatal("curl is not installed (Debian package curl)")
	} else if err != nil {
		t.Skip("curl is not installed (Debian package curl)")
	}
	l := newLab(t, nil)
	run := func(args ...string) string {
		args = append([]string{"--silent", "--max-time", "30", "--noproxy", "*", "--user", `EXAMPLE\mufasa:` + secret, "--write-out", " %{http_code}"}, args...)
		out, err := exec.CommandContext(t.Context(), curl, args...).Output()
		require.NoError(t, err)
		return string(out)
	}
	require.Equal(t, "hello mufasa, 5 bytes 200hello mufasa, 5 bytes 200", run("--anyauth", "--data", "12345", l.URL+"/a", l.URL+"/a"))
	theirs := l.take()
	client := newClient(t, nil, nil)
	for range 2 {
		status, body := do(t, client, newRequest(t, "POST", l.URL+"/a", strings.NewReader("12345")))
		require.Equal(t, "hello mufasa, 5 bytes 200", fmt.Sprint(body, " ", status))
	}
	require.Equal(t, theirs, l.take())
	require.Equal(t, []string{"POST /a", "POST /a 1", "POST /a 3", "POST /a"}, theirs)

	// Where curl is told the scheme, it sends the first message at once, as a POST without a body, also to a place that is open to all.
	require.Equal(t, "hello mufasa, 5 bytes 200", run("--ntlm", "--data", "12345", l.URL+"/a"))
	require.Equal(t, []string{"POST /a 1", "POST /a 3"}, l.take())
}
