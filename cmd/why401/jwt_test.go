package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// TestUnfitJWT sends tokens that cannot be right by what they say of themselves, or are not whole.
func TestUnfitJWT(t *testing.T) {
	hour := noon.Add(time.Hour).Unix()
	claims := func(more string) string { return newJWT(fmt.Sprintf(`{"sub":"Ali","exp":%d%s}`, hour, more)) }
	with := func(header string) string {
		_, rest, _ := strings.Cut(claims(""), ".")
		first, _, _ := strings.Cut(signed(header, ""), ".")
		return first + "." + rest
	}
	whole := claims("")
	parts := strings.Split(whole, ".")
	for name, c := range map[string]struct {
		token, cause, sure string
	}{
		"fit":                     {whole, "wrong-token", likely},
		"an ID token by typ":      {claims(`,"typ":"ID"`), "id-token", certain},
		"an ID token by at_hash":  {claims(`,"at_hash":"x"`), "id-token", certain},
		"an ID token by nonce":    {claims(`,"nonce":"x"`), "id-token", likely},
		"an access token":         {signed(`{"alg":"ES256","typ":"at+jwt"}`, fmt.Sprintf(`{"exp":%d,"nonce":"x"}`, hour)), "wrong-token", likely},
		"a refresh token":         {claims(`,"typ":"Refresh"`), "refresh-token", certain},
		"an offline token":        {claims(`,"typ":"Offline"`), "refresh-token", certain},
		"typ Bearer":              {claims(`,"typ":"Bearer"`), "wrong-token", likely},
		"not signed":              {with(`{"alg":"none"}`), "token-unsigned", certain},
		"exp in milliseconds":     {newJWT(fmt.Sprintf(`{"exp":%d}`, hour*1000)), "token-milliseconds", likely},
		"expired in milliseconds": {newJWT(fmt.Sprintf(`{"exp":%d}`, (hour-7200)*1000)), "token-milliseconds", likely},
		"nbf in milliseconds":     {claims(fmt.Sprintf(`,"nbf":%d`, (hour-7200)*1000)), "token-milliseconds", certain},
		"issued in the future":    {claims(fmt.Sprintf(`,"iat":%d`, noon.Unix()+600)), "token-issued-later", likely},
		"issued now":              {claims(fmt.Sprintf(`,"iat":%d`, noon.Unix()+1)), "wrong-token", likely},
		"two parts":               {parts[0] + "." + parts[1], "token-cut", certain},
		"one part":                {parts[0], "token-cut", certain},
		"no signature":            {parts[0] + "." + parts[1] + ".", "token-cut", certain},
		"half a signature":        {whole[:len(whole)-10], "token-cut", certain},
		"six parts":               {whole + "." + whole, "token-cut", certain},
		"claims are not whole":    {parts[0] + "." + parts[1][3:] + "." + parts[2], "token-damaged", certain},
		"exp in a string":         {newJWT(`{"exp":"1790000000"}`), "token-claim-type", likely},
		"a claim of another type": {claims(`,"nonce":1`), "wrong-token", likely},
		"disclosures":             {whole + "~x~", "wrong-token", likely},
		"encrypted":               {parts[0] + ".a.b.c.d", "wrong-token", likely},
		"no JWT":                  {"eyJhIjoxfQ", "wrong-token", likely},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": echoing(`WWW-Authenticate: Bearer realm="cave"`)})
			for i, args := range [][]string{{"-token-env", "ODD"}, {"-H", "Authorization: Bearer " + c.token}} {
				if thorough.Or(false, i != len(name)%2) {
					continue // one way or the other
				}
				w.env = map[string]string{"ODD": c.token}
				first, out := w.cause(append(args, "https://api.example.com/")...)
				require.Equal(t, c.cause, first.Name, out)
				require.Equal(t, c.sure, first.Sure, out)
				require.NotContains(t, out, c.token)
				require.NotContains(t, out, parts[2])
				if c.cause != "wrong-token" {
					require.NotContains(t, out, "The token is expired")
					require.NotContains(t, out, "The token is revoked")
				}
			}
		})
	}
}

// TestClocks has tokens that are good by one clock and not by the other.
func TestClocks(t *testing.T) {
	for _, c := range []struct {
		claims string
		server time.Duration // how far its clock is ahead
		cause  string
		text   string
	}{
		{fmt.Sprintf(`{"exp":%d}`, noon.Unix()+3600), 2 * time.Hour, "clocks", "ahead of the one here. By that clock the token has expired"},
		{fmt.Sprintf(`{"exp":%d,"nbf":%d}`, noon.Unix()+36000, noon.Unix()-60), -2 * time.Hour, "clocks", "behind the one here. By that clock the token is not valid yet"},
		{fmt.Sprintf(`{"exp":%d,"iat":%d}`, noon.Unix()+36000, noon.Unix()-1), -30 * time.Second, "clocks", "30 seconds behind the one here. By that clock the token was issued in the future"},
		{fmt.Sprintf(`{"exp":%d}`, noon.Unix()-1), 2 * time.Hour, "token-expired", "2 hours ago by the server's clock"},
		{fmt.Sprintf(`{"exp":%d}`, noon.Unix()-1), 0, "token-expired", ""},
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "Date: "+noon.Add(c.server).Format(http.TimeFormat)+"\nWWW-Authenticate: Bearer error=\"invalid_token\"")})
		w.env = map[string]string{"ODD": newJWT(c.claims)}
		first, out := w.cause("-token-env", "ODD", "https://api.example.com/")
		require.Equal(t, c.cause, first.Name, out)
		require.Equal(t, certain, first.Sure)
		require.Contains(t, first.Text, c.text)
		if c.cause == "clocks" {
			require.NotContains(t, out, "The token has expired.")
			require.Equal(t, 1, strings.Count(strings.Join(strings.Fields(out), " "), "the one here. By that clock"))
		}
	}
}
