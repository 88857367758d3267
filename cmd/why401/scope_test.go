package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestScopesThatAreMissing names what the token lacks, as far as that can be told.
func TestScopesThatAreMissing(t *testing.T) {
	scoped := func(claim string) string {
		return newJWT(fmt.Sprintf(`{"sub":"Ali","exp":%d,%s}`, noon.Add(time.Hour).Unix(), claim))
	}
	long := strings.Repeat("https://api.example.com/auth/x ", 3)
	for name, c := range map[string]struct{ token, scope, sure, cause, do string }{
		"no JWT":                {"opaque-token-of-the-test", "a:read a:write", "Cause:", "its scope does not allow this.", "Get a token with the scope a:read a:write."},
		"no JWT, none named":    {"opaque-token-of-the-test", "", "Cause:", "its scope does not allow this.", "Get a token with a wider scope;"},
		"no JWT, long":          {"opaque-token-of-the-test", long, "Cause:", "its scope does not allow this.", "Get a token with the scope that the server names."},
		"JWT without":           {scoped(`"iss":"x"`), "a:write", "Cause:", "its scope does not allow this.", "Get a token with the scope a:write."},
		"JWT with another":      {scoped(`"scope":"b"`), "a:write", "Cause:", "its scope does not allow this.", "Get a token with the scope a:write."},
		"JWT that lacks one":    {scoped(`"scope":"openid a:read"`), "a:read a:write", "Cause:", "its scope does not allow this.", "Get a token that also has the scope a:write."},
		"scp that lacks one":    {scoped(`"scp":["a:read",7]`), "a:read a:write", "Cause:", "its scope does not allow this.", "Get a token that also has the scope a:write."},
		"JWT that lacks much":   {scoped(`"scope":"a"`), "a " + long, "Cause:", "its scope does not allow this.", "Get a token that also has the scope that the server names."},
		"JWT that has it":       {scoped(`"scope":"a:write a:read"`), "a:read a:write", "Likely cause:", "has the scope that the server names, and is refused.", "See what else the server looks at."},
		"scope that is no text": {scoped(`"scope":{"a":1}`), "a", "Cause:", "its scope does not allow this.", "Get a token with the scope a."},
	} {
		t.Run(name, func(t *testing.T) {
			challenge := `Bearer error="insufficient_scope"`
			if c.scope != "" {
				challenge += fmt.Sprintf(`, scope="%s"`, c.scope)
			}
			w := newWorld(t, map[string]http.Handler{"api.example.com": says(403, "WWW-Authenticate: "+challenge)})
			w.env = map[string]string{"SCOPED": c.token}
			first, out := w.cause("-token-env", "SCOPED", "https://api.example.com/")
			require.Equal(t, "insufficient-scope", first.Name, out)
			lines := strings.Split(out, "\n")
			require.True(t, strings.HasPrefix(lines[0], c.sure), lines[0])
			require.Contains(t, lines[0], c.cause)
			require.Contains(t, lines[1], c.do)
			require.LessOrEqual(t, max(len(lines[0]), len(lines[1])), 80)
			require.NotContains(t, out, c.token)
		})
	}
}
