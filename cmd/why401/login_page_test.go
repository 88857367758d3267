package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Pages that lead a browser to a login at once are login pages, and others that lead on are not.
func TestPagesThatLeadToLogin(t *testing.T) {
	for body, want := range map[string]int{
		`<body onload="document.forms[0].submit()"><form method="post" action="https://idp.example.com/"><input type="hidden" name="SAMLRequest" value="PHNhbWw="/>`: 1,
		`<script>window.location.href="/login?next=/api"</script>`:                              1,
		`<script>window.location = 'https://sso.example.com/signin'</script>`:                   1,
		`<script>location.replace("/oauth2/sign_in")</script>`:                                  1,
		`<meta http-equiv="refresh" content="0;url=/oauth2/sign_in?rd=/api">`:                   1,
		`<meta http-equiv="refresh" content="0; URL='/login'">`:                                 1,
		`<meta http-equiv="refresh" content="30">`:                                              0,
		`<meta http-equiv="refresh" content="0;url=/docs/">`:                                    0,
		`<script>if (window.location.protocol) { x = "/login" }</script>`:                       0,
		`<script>window.location.href="/docs?from=/login"</script>`:                             0,
		`<a href="/login">Log in</a>`:                                                           0,
		`<script>function go() { window.location.hash; open("/login") }</script><div id="app">`: 0,
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(200, "Content-Type: text/html\n\n"+body)})
		out, status := w.run([]string{"-token-env", "TOKEN", "https://api.example.com/"}, "", true)
		require.Equal(t, want, status, "%s\n%s", body, out)
	}
}
