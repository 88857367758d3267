package kerberos

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/negotiate"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/stretchr/testify/require"
)

// curl makes requests by curl with a credential cache, and returns what it says.
func curl(t *testing.T, r *servers.KerberosKDC, cache string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		servers.Missing(t, "curl is not installed (Debian package curl)")
	}
	cmd := exec.Command(path, append([]string{"--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"}, args...)...)
	cmd.Env = append(r.Env, "KRB5CCNAME=FILE:"+cache)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// A judge is a server that asks for Negotiate, takes any token, and keeps them.
type judge struct {
	*httptest.Server
	mu   sync.Mutex
	sent []string // guarded by mu
}

func newJudge(t *testing.T) *judge {
	j := &judge{}
	j.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.sent = append(j.sent, r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", "Negotiate")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(j.Close)
	j.URL = strings.Replace(j.URL, "127.0.0.1", "localhost", 1)
	return j
}

func (j *judge) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	sent := j.sent
	j.sent = nil
	return sent
}

// A token is what there is to see of one, for who has the service's key.
type token struct {
	mechanisms  []asn1.ObjectIdentifier
	spn, realm  string
	options     []byte // of the AP-REQ
	user        string
	checksum    int32
	flags       []byte
	hasBindings bool
}

// read reads a token with the service's key.
func read(t *testing.T, authorization string, keys *keytab.Keytab) token {
	t.Helper()
	value, ok := strings.CutPrefix(authorization, "Negotiate ")
	require.True(t, ok, authorization)
	b, err := base64.StdEncoding.DecodeString(value)
	require.NoError(t, err)
	var init struct {
		Mechanisms []asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
		Flags      asn1.BitString          `asn1:"explicit,optional,tag:1"`
		Token      []byte                  `asn1:"explicit,tag:2"`
	}
	choice := inFrame(t, b, "1.3.6.1.5.5.2")
	var raw asn1.RawValue
	_, err = asn1.Unmarshal(choice, &raw)
	require.NoError(t, err)
	_, err = asn1.Unmarshal(raw.Bytes, &init)
	require.NoError(t, err)
	inner := inFrame(t, init.Token, "1.2.840.113554.1.2.2")
	require.Equal(t, []byte{1, 0}, inner[:2])
	var req messages.APReq
	require.NoError(t, req.Unmarshal(inner[2:]))
	require.NoError(t, req.Ticket.DecryptEncPart(keys, &req.Ticket.SName))
	require.NoError(t, req.DecryptAuthenticator(req.Ticket.DecryptedEncPart.Key))
	sum := req.Authenticator.Cksum
	return token{init.Mechanisms, req.Ticket.SName.PrincipalNameString(), req.Ticket.Realm, req.APOptions.Bytes,
		req.Authenticator.CName.PrincipalNameString() + "@" + req.Authenticator.CRealm, sum.CksumType, sum.Checksum[20:24],
		!bytes.Equal(sum.Checksum[4:20], make([]byte, 16))}
}

func inFrame(t *testing.T, b []byte, mechanism string) []byte {
	t.Helper()
	var frame asn1.RawValue
	rest, err := asn1.Unmarshal(b, &frame)
	require.NoError(t, err)
	require.Empty(t, rest)
	var oid asn1.ObjectIdentifier
	content, err := asn1.Unmarshal(frame.Bytes, &oid)
	require.NoError(t, err)
	require.Equal(t, mechanism, oid.String())
	return content
}

// TestCurl makes the same requests by curl and by us, and compares what arrived at the server.
func TestCurl(t *testing.T) {
	r := servers.Kerberos(t, "")
	cache := r.Login(t, user, servers.Password)
	keys, err := keytab.Load(r.Dir + "/http.keytab")
	require.NoError(t, err)
	j := newJudge(t)
	for name, c := range map[string]struct {
		arg   string
		ahead bool
		sends int
	}{"ahead": {"--negotiate", true, 1}, "challenged": {"--anyauth", false, 2}} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "200", curl(t, r, cache, c.arg, "--user", ":", j.URL))
			byCurl := j.take()
			rt := &authretry.Transport{Base: &http.Transport{}, Schemes: []authretry.Scheme{
				&negotiate.Scheme{Kerberos: &negotiate.Client{Cache: cache, Config: r.Config}, Ahead: c.ahead}}}
			defer rt.CloseIdleConnections()
			for _, sends := range []int{c.sends, 1} {
				resp, err := rt.RoundTrip(newRequest(t, j.URL))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				byUs := j.take()
				require.Len(t, byUs, sends)
				if sends != c.sends {
					break
				}
				require.Len(t, byCurl, sends)
				theirs, ours := read(t, byCurl[sends-1], keys), read(t, byUs[sends-1], keys)
				t.Logf("curl: %+v\nwe:   %+v", theirs, ours)
				require.Contains(t, theirs.mechanisms, ours.mechanisms[0])
				require.Len(t, ours.mechanisms, 1)
				require.Equal(t, theirs.mechanisms[0], ours.mechanisms[0])
				require.Equal(t, theirs.spn, ours.spn)
				require.Equal(t, theirs.realm, ours.realm)
				require.Equal(t, theirs.user, ours.user)
				require.Equal(t, theirs.options, ours.options)
				require.Equal(t, theirs.checksum, ours.checksum)
				require.Equal(t, theirs.hasBindings, ours.hasBindings)
			}
		})
	}
}

// A ticket that curl has left in the cache is used: no KDC is asked.
func TestTicketOfCurls(t *testing.T) {
	r := servers.Kerberos(t, "")
	cache := r.Login(t, user, servers.Password)
	j := newJudge(t)
	require.Equal(t, "200", curl(t, r, cache, "--negotiate", "--user", ":", j.URL))
	require.Equal(t, 1, r.Issued(t, service))
	_, err := (&negotiate.Client{Cache: cache, Config: r.Config}).Token(t.Context(), service)
	require.NoError(t, err)
	require.Equal(t, 1, r.Issued(t, service))
}
