package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each sign is found by each of its words, and with each of its statuses: none that comes before it takes it for its own.
func TestEverySignIsFound(t *testing.T) {
	for _, s := range allSigns() {
		words := s.words
		if len(words) == 0 {
			words = []string{""}
		}
		for _, status := range s.statuses {
			for _, word := range words {
				header := http.Header{}
				if name, value, ok := strings.Cut(s.header, ": "); ok {
					header.Set(name, value)
				}
				found := ""
				for _, sent := range []string{"", "Basic", "Digest", "Bearer"} { // one of which is what the sign is for
					for _, method := range []string{"GET", "POST"} {
						header := header.Clone()
						if method == "POST" {
							header.Set("Set-Cookie", "XSRF-TOKEN=x")
						}
						if s.name == "rate" {
							header.Set("X-Ratelimit-Remaining", "0")
						}
						in := &inquiry{report: &report{}, words: "so it is: " + word + "!"}
						in.method, in.url = method, &url.URL{Scheme: "http", Host: "api.test"}
						in.hops = []hop{{req: &http.Request{URL: &url.URL{Scheme: "http", Host: "api.test"}, Header: http.Header{}}, sent: sent}}
						in.resp = &http.Response{StatusCode: status, Header: header}
						if c := in.sign(); c != nil && (found == "" || c.Name == s.name) {
							found = c.Name
						}
					}
				}
				require.Equal(t, s.name, found, "%d %q", status, word)
			}
		}
	}
}

// A header by which a sign is found is shown, so that a person sees it, too.
func TestHeadersOfSignsAreShown(t *testing.T) {
	for _, s := range allSigns() {
		if name, _, _ := strings.Cut(s.header, ": "); name != "" {
			require.Contains(t, matters, http.CanonicalHeaderKey(name), s.name)
		}
	}
}

// What the body says is found where APIs put it.
func TestMessageInBody(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"application/json", `{"message":"The door is shut."}`, "The door is shut."},
		{"application/json", `{"error":{"code":7,"message":"The door is shut."}}`, "The door is shut."},
		{"application/json", `{"errors":[{"detail":"The door is shut."}]}`, "The door is shut."},
		{"application/problem+json", `{"type":"about:blank","title":"No","detail":"The door is shut."}`, "The door is shut."},
		{"application/json", `[{"errorCode":"SHUT","message":"The door is shut."}]`, "The door is shut."},
		{"application/json", `{"error":"shut","error_description":"The door is shut."}`, "The door is shut."},
		{"application/xml", `<?xml version="1.0"?><Error><Code>Shut</Code><Message>The door is shut.</Message></Error>`, "The door is shut."},
		{"text/plain", "The door is shut.\n", "The door is shut."},
		{"text/html", "<p>The door is shut.</p>", ""},
		{"application/json", `{"message":`, ""},
		{"application/json", `"The door is shut."`, ""},
		{"application/json", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), ""},
		{"application/xml", `<?xml version="1.0"?><Error>`, ""},
	} {
		require.Equal(t, c.want, messageIn(&http.Response{Header: http.Header{"Content-Type": {c.kind}}}, c.body), c.body)
	}
	for _, text := range []string{"Unauthorized", "401 Unauthorized.", "Error: access denied!", "Invalid credentials"} {
		require.True(t, isCommonplace(text), text)
	}
	require.False(t, isCommonplace("The door is shut."))
}

// A password in the body that was sent is not printed when a server quotes it, as some do of what they cannot read.
func TestBodyThatIsQuoted(t *testing.T) {
	for _, data := range []string{`{"user":"Ali","login":{"password":"` + wrong + `"}}`, "user=Ali&client_secret=" + wrong} {
		file := filepath.Join(t.TempDir(), "data")
		require.NoError(t, os.WriteFile(file, []byte(data), 0o600))
		w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			w.WriteHeader(401)
			fmt.Fprintf(w, "cannot read %s", body)
		})})
		out, status := w.run([]string{"-data", file, "https://api.example.com/"}, "", true)
		require.Equal(t, 1, status, out)
		require.Contains(t, out, "Ali")
		noSecret(t, out)
	}
}

// What an error_description means says what to do, rather than the error code alone.
func TestDescriptionIsUnderstood(t *testing.T) {
	for description, want := range map[string]string{
		"Couldn't retrieve remote JWK set": "reaches the issuer's jwks_uri", // Spring
		"The signature key was not found":  "Compare the token's iss and kid",
		"The door is shut":                 "Get a new token",
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="invalid_token", error_description=%q`, description))
			w.WriteHeader(401)
		})})
		out, status := w.run([]string{"-token-env", "TOKEN", "https://api.example.com/"}, "", true)
		require.Equal(t, 1, status, out)
		brief := strings.Join(strings.Split(out, "\n")[:2], "\n")
		require.Contains(t, brief, want)
		require.Contains(t, out, description)
	}
}

// A 403 that says that nothing came is not one of who knows the caller.
func TestForbiddenWhereNothingCame(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(403)
		io.WriteString(w, `{"detail":"Authentication credentials were not provided."}`) // Django REST framework
	})})
	out, status := w.run([]string{"-token-env", "TOKEN", "https://api.example.com/"}, "", true)
	require.Equal(t, 1, status, out)
	require.Contains(t, strings.Split(out, "\n")[0], "saw no credentials, or wants another word than Bearer")
	require.NotContains(t, out, "knows who this is")
}

// What SharePoint says in a header is understood as if it stood in the body.
func TestWordsInHeader(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, `X-Ms-Diagnostics: 3000006;reason="Token contains invalid signature.";category="invalid_client"`+"\nWWW-Authenticate: Bearer")})
	first, out := w.cause("-token-env", "TOKEN", "https://api.example.com/")
	require.Equal(t, "token-signature", first.Name, out)
	require.Contains(t, out, "X-Ms-Diagnostics: 3000006")
}

// A message that is not about the token does not have a new token advised before it is heeded.
func TestMessageOfAnotherThing(t *testing.T) {
	for message, want := range map[string]string{
		"You must be a member of an organization": "What to do: See to what it says.",
		"The bearer is not known to this shop":    "What to do: Get a new one",
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "Content-Type: application/json\n\n"+fmt.Sprintf(`{"message":%q}`, message))})
		_, out := w.cause("-token-env", "TOKEN", "https://api.example.com/")
		require.Contains(t, strings.Split(out, "\n")[1], want)
	}
}
