package registry_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// writeConfig writes a configuration file, and returns its path.
func writeConfig(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// auth returns an entry in auths.
func auth(username, password string) string {
	return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(username+":"+password)) + `"}`
}

// bearer returns the challenge of a registry for a scope.
func bearer(scope string) *authretry.Challenge {
	return &authretry.Challenge{Scheme: "Bearer", Params: authretry.Params{{Name: "scope", Value: scope}}}
}

var basicChallenge = &authretry.Challenge{Scheme: "Basic"}

func TestDockerConfig(t *testing.T) {
	const scope = "repository:team/app:pull"
	for name, c := range map[string]struct {
		config    string
		origin    string
		challenge *authretry.Challenge
		want      string // user:password; "" if there are none
	}{
		"a host":                  {`{"auths":{"registry.example.com":` + auth("u", "p") + `}}`, "https://registry.example.com", bearer(scope), "u:p"},
		"another host":            {`{"auths":{"registry.example.com":` + auth("u", "p") + `}}`, "https://evil.example.com", bearer(scope), ""},
		"a longer host":           {`{"auths":{"registry.example.com":` + auth("u", "p") + `}}`, "https://registry.example.com.evil.com", bearer(scope), ""},
		"a host with a port":      {`{"auths":{"registry.example.com:5000":` + auth("u", "p") + `}}`, "https://registry.example.com:5000", bearer(scope), "u:p"},
		"another port":            {`{"auths":{"registry.example.com:5000":` + auth("u", "p") + `}}`, "https://registry.example.com", bearer(scope), ""},
		"the usual port":          {`{"auths":{"registry.example.com:443":` + auth("u", "p") + `}}`, "https://registry.example.com", bearer(scope), "u:p"},
		"IPv6":                    {`{"auths":{"[::1]:5000":` + auth("u", "p") + `}}`, "http://[::1]:5000", bearer(scope), "u:p"},
		"as old versions wrote":   {`{"auths":{"https://registry.example.com/v1/":` + auth("u", "p") + `}}`, "https://registry.example.com", bearer(scope), "u:p"},
		"Docker Hub":              {`{"auths":{"https://index.docker.io/v1/":` + auth("u", "p") + `}}`, "https://registry-1.docker.io", bearer(scope), "u:p"},
		"Docker Hub, as Podman":   {`{"auths":{"docker.io":` + auth("u", "p") + `}}`, "https://registry-1.docker.io", bearer(scope), "u:p"},
		"for Basic":               {`{"auths":{"registry.example.com":` + auth("u", "p") + `}}`, "https://registry.example.com", basicChallenge, "u:p"},
		"ahead":                   {`{"auths":{"registry.example.com":` + auth("u", "p") + `}}`, "https://registry.example.com", nil, "u:p"},
		"a colon in the password": {`{"auths":{"registry.example.com":` + auth("u", "p:q") + `}}`, "https://registry.example.com", bearer(scope), "u:p:q"},
		"not encoded":             {`{"auths":{"registry.example.com":{"username":"u","password":"p"}}}`, "https://registry.example.com", bearer(scope), "u:p"},
		"without padding":         {`{"auths":{"registry.example.com":{"auth":"dTpwcA"}}}`, "https://registry.example.com", bearer(scope), "u:pp"},
		"an identity token":       {`{"auths":{"registry.example.com":{"auth":"dTo=","identitytoken":"i"}}}`, "https://registry.example.com", bearer(scope), "<token>:i"},
		"one is not for Basic":    {`{"auths":{"registry.example.com":{"auth":"dTo=","identitytoken":"i"}}}`, "https://registry.example.com", basicChallenge, ""},
		"nor ahead":               {`{"auths":{"registry.example.com":{"auth":"dTo=","identitytoken":"i"}}}`, "https://registry.example.com", nil, ""},
		"the repository's": {`{"auths":{"registry.example.com":` + auth("u", "p") + `,"registry.example.com/team":` + auth("team", "q") + `,"registry.example.com/team/app":` + auth("app", "r") + `}}`,
			"https://registry.example.com", bearer(scope), "app:r"},
		"the namespace's": {`{"auths":{"registry.example.com":` + auth("u", "p") + `,"registry.example.com/team":` + auth("team", "q") + `}}`,
			"https://registry.example.com", bearer(scope), "team:q"},
		"of the one that is written to": {`{"auths":{"registry.example.com/a":` + auth("a", "p") + `,"registry.example.com/b":` + auth("b", "q") + `}}`,
			"https://registry.example.com", bearer("repository:a:pull repository:b:pull,push"), "b:q"},
		"no namespace of the same beginning": {`{"auths":{"registry.example.com/tea":` + auth("u", "p") + `}}`, "https://registry.example.com", bearer(scope), ""},
		"an empty entry":                     {`{"auths":{"registry.example.com":{}}}`, "https://registry.example.com", bearer(scope), ""},
		"an empty file":                      {`{}`, "https://registry.example.com", bearer(scope), ""},
	} {
		t.Run(name, func(t *testing.T) {
			username, password, err := registry.DockerConfig(writeConfig(t, c.config))(t.Context(), authretry.CredentialsRequest{Origin: c.origin, Challenge: c.challenge})
			if c.want == "" {
				require.ErrorIs(t, err, authretry.ErrUnsupportedChallenge)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, username+":"+password)
		})
	}
}

func TestDockerConfigThatIsDamaged(t *testing.T) {
	const secret = "a-secret-word"
	for name, text := range map[string]string{
		"not JSON":       `{"auths":{"registry.example.com":"` + secret,
		"other types":    `{"auths":["` + secret + `"]}`,
		"not base64":     `{"auths":{"registry.example.com":{"auth":"` + secret + `!"}}}`,
		"without colon":  `{"auths":{"registry.example.com":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}}}`,
		"too large":      `{"x":"` + strings.Repeat("a", 1<<20) + `"}`,
		"a strange name": `{"credsStore":"../../` + secret + `"}`,
		"a shell":        `{"credsStore":"x; touch ` + secret + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := registry.DockerConfig(writeConfig(t, text))(t.Context(), authretry.CredentialsRequest{Origin: "https://registry.example.com"})
			require.Error(t, err)
			require.NotErrorIs(t, err, authretry.ErrUnsupportedChallenge, "a login that cannot be read is not the same as none")
			require.NotContains(t, err.Error(), secret)
		})
	}
	_, _, err := registry.DockerConfig(filepath.Join(t.TempDir(), "none"))(t.Context(), authretry.CredentialsRequest{Origin: "https://registry.example.com"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestUsualConfigurations(t *testing.T) {
	home, runtimeDir := t.TempDir(), t.TempDir()
	for name, value := range map[string]string{"HOME": home, "USERPROFILE": home, "XDG_RUNTIME_DIR": runtimeDir, "DOCKER_CONFIG": "", "REGISTRY_AUTH_FILE": ""} {
		t.Setenv(name, value)
	}
	find := registry.DockerConfig("")
	get := func() string {
		username, _, err := find(t.Context(), authretry.CredentialsRequest{Origin: "https://registry.example.com"})
		if err != nil {
			require.ErrorIs(t, err, authretry.ErrUnsupportedChallenge)
		}
		return username
	}
	require.Empty(t, get())
	other := t.TempDir()
	for _, c := range []struct{ path, variable, value string }{ // each is before those that are there already
		{filepath.Join(home, ".config", "containers", "auth.json"), "", ""},
		{filepath.Join(runtimeDir, "containers", "auth.json"), "", ""},
		{filepath.Join(other, "podman.json"), "REGISTRY_AUTH_FILE", filepath.Join(other, "podman.json")},
		{filepath.Join(home, ".docker", "config.json"), "", ""},
		{filepath.Join(other, "config.json"), "DOCKER_CONFIG", other},
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(c.path), 0o700))
		require.NoError(t, os.WriteFile(c.path, []byte(`{"auths":{"registry.example.com":`+auth(filepath.Base(filepath.Dir(c.path))+filepath.Base(c.path), "p")+`}}`), 0o600))
		if c.variable != "" {
			t.Setenv(c.variable, c.value)
		}
		require.Equal(t, filepath.Base(filepath.Dir(c.path))+filepath.Base(c.path), get())
	}
}

// helper puts a credential helper into $PATH, a script that has the registry in $registry.
func helper(t *testing.T, name, script string) {
	if runtime.GOOS == "windows" {
		t.Skip("helpers are shell scripts here")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "docker-credential-"+name)
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nread -r registry || :\n"+script), 0o700))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestCredentialHelpers(t *testing.T) {
	helper(t, "test", `
[ "$1" = get ] || exit 3
case "$registry" in
registry.example.com|https://index.docker.io/v1/|key.example.com/v1/) echo '{"ServerURL":"'$registry'","Username":"u","Secret":"p"}' ;;
identity.example.com) echo '{"Username":"<token>","Secret":"i"}' ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac`)
	for config, want := range map[string]map[string]string{
		`{"credsStore":"test"}`: {"https://registry.example.com": "u:p", "https://registry-1.docker.io": "u:p", "https://identity.example.com": "<token>:i", "https://evil.example.com": ""},
		`{"credHelpers":{"registry.example.com":"test","identity.example.com":"test"}}`:                                                       {"https://registry.example.com": "u:p", "https://identity.example.com": "<token>:i", "https://registry-1.docker.io": ""},
		`{"credHelpers":{"registry.example.com":"test"},"credsStore":"is-not-there","auths":{"registry.example.com":` + auth("a", "b") + `}}`: {"https://registry.example.com": "u:p"},
		`{"credsStore":"test","auths":{"registry.example.com":{},"key.example.com/v1/":{}}}`:                                                  {"https://registry.example.com": "u:p", "https://key.example.com": "u:p"},
		`{"credsStore":"test","auths":{"registry.example.com":` + auth("a", "b") + `}}`:                                                       {"https://registry.example.com": "a:b"},
	} {
		for origin, credentials := range want {
			username, password, err := registry.DockerConfig(writeConfig(t, config))(t.Context(), authretry.CredentialsRequest{Origin: origin, Challenge: bearer("")})
			if credentials == "" {
				require.ErrorIs(t, err, authretry.ErrUnsupportedChallenge, "%s %s", config, origin)
				continue
			}
			require.NoError(t, err, "%s %s", config, origin)
			require.Equal(t, credentials, username+":"+password, "%s %s", config, origin)
		}
	}
	_, _, err := registry.DockerConfig(writeConfig(t, `{"credsStore":"test"}`))(t.Context(), authretry.CredentialsRequest{Origin: "https://identity.example.com", Challenge: basicChallenge})
	require.ErrorIs(t, err, authretry.ErrUnsupportedChallenge, "an identity token is not for Basic")
}

func TestCredentialHelpersThatFail(t *testing.T) {
	const secret = "a-secret-word"
	for name, c := range map[string]struct{ script, why string }{
		"prints nothing":   {"exit 0", "has printed no credentials"},
		"prints text":      {"echo " + secret, "has printed no credentials"},
		"prints no secret": {`echo '{"Username":"` + secret + `"}'`, "has printed no credentials"},
		"prints for ever":  {"yes " + secret + " | head -c 1000000", "has printed no credentials"},
		"fails":            {"echo " + secret + "; echo " + secret + " >&2; exit 7", "exit status 7"},
		"kills itself":     {"kill -9 $$", "signal: killed"},
		"is not there":     {"", "is not in a folder of $PATH"},
		"hangs":            {thorough.Or("", "exec ") + "sleep 60", "has not answered in time"},
	} {
		t.Run(name, func(t *testing.T) {
			store := "test"
			if c.script == "" {
				store = "is-not-there"
			}
			helper(t, "test", c.script)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if name == "hangs" {
				ctx, cancel = context.WithTimeout(t.Context(), thorough.Or(300*time.Millisecond, 100*time.Millisecond))
			}
			defer cancel()
			start := time.Now()
			_, _, err := registry.DockerConfig(writeConfig(t, `{"credsStore":"`+store+`"}`))(ctx, authretry.CredentialsRequest{Origin: "https://registry.example.com"})
			require.ErrorContains(t, err, c.why)
			require.NotErrorIs(t, err, authretry.ErrUnsupportedChallenge)
			require.NotContains(t, err.Error(), secret)
			require.Less(t, time.Since(start), 10*time.Second)
		})
	}
}

// An agent that a helper has started, and that keeps its pipe, holds up nobody.
func TestCredentialHelperThatLeavesAChild(t *testing.T) {
	if thorough.Or(false, true) {
		t.Skip("it waits for helperGrace: set AUTHRETRY_TESTS=all")
	}
	helper(t, "test", `sleep 20 & echo '{"Username":"u","Secret":"p"}'`)
	start := time.Now()
	username, _, err := registry.DockerConfig(writeConfig(t, `{"credsStore":"test"}`))(t.Context(), authretry.CredentialsRequest{Origin: "https://registry.example.com"})
	require.NoError(t, err)
	require.Equal(t, "u", username)
	require.Less(t, time.Since(start), 10*time.Second)
}

// One func serves registries with a token server, and those without.
func TestDockerConfigForBothKinds(t *testing.T) {
	tokens := authtest.NewServer(&authtest.Registry{Username: user, Password: password})
	defer tokens.Close()
	plain := authtest.NewServer(&authtest.Basic{Username: user, Password: password})
	defer plain.Close()
	host := func(s *authtest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	find := registry.DockerConfig(writeConfig(t, `{"auths":{"`+host(tokens)+`":`+auth(user, password)+`,"`+host(plain)+`":`+auth(user, password)+`}}`))
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: find}, &authretry.Basic{Credentials: find})}
	for _, u := range []string{tokens.URL, plain.URL} {
		resp, err := client.Get(u + "/v2/a/manifests/latest")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
	}
}
