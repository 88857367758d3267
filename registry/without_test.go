package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// Where it is credentials that are missing, that is said, however the registry or its token server puts it: where they were looked
// for, and what to do.
func TestMissingCredentialsAreSaid(t *testing.T) {
	home := t.TempDir()
	for name, value := range map[string]string{"HOME": home, "USERPROFILE": home, "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": "", "REGISTRY_AUTH_FILE": ""} {
		t.Setenv(name, value)
	}
	helper(t, "test", `echo "credentials not found in native keychain"; exit 1`)
	docker, podman, helped := writeConfig(t, `{}`), filepath.Join(home, "auth.json"), writeConfig(t, `{"credsStore":"test"}`)
	require.NoError(t, os.WriteFile(podman, []byte(`{}`), 0o600))

	servers := map[string]func(srv *authtest.Server){
		"a token that grants nothing": func(srv *authtest.Server) {
			srv.Protect("/", &authtest.Registry{Username: user, Password: password, Public: []string{"public"}})
		},
		"the same, without error codes": func(srv *authtest.Server) {
			srv.Protect("/", &authtest.Registry{Username: user, Password: password, Public: []string{"public"}, NoCodes: true})
		},
		"no token (401)": func(srv *authtest.Server) {
			srv.Protect("/", &authtest.Registry{Username: user, Password: password})
		},
		"no token (403)": func(srv *authtest.Server) {
			srv.Protect("/", &authtest.Registry{Username: user, Password: password})
			srv.Inject("/token", -1, authtest.Reply(403, nil, ""))
		},
	}
	for name, start := range servers {
		for want, credentials := range map[string]authretry.CredentialsFunc{
			`Scheme.Credentials is nil; set it, for instance to registry.DockerConfig("")`:                                                  nil,
			`Scheme.Credentials returns none for it`:                                                                                        login("https://another.example.com"),
			`Scheme.Credentials returns none for it: the vault has none`:                                                                    none("the vault has none"),
			docker + ` has none; run "docker --config ` + filepath.Dir(docker) + ` login HOST"`:                                             registry.DockerConfig(docker),
			podman + ` has none; run "podman login --authfile ` + podman + ` HOST"`:                                                         registry.DockerConfig(podman),
			`docker-credential-test, which ` + helped + ` names, knows none; run "docker --config ` + filepath.Dir(helped) + ` login HOST"`: registry.DockerConfig(helped),
			`none of these files exists: ` + inHome(home) + `; run "docker login HOST"`:                                                     registry.DockerConfig(""),
		} {
			t.Run(name+", "+want, func(t *testing.T) {
				srv := authtest.NewServer()
				defer srv.Close()
				start(srv)
				host := strings.TrimPrefix(srv.URL, "http://")
				client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: credentials})}
				for range 3 { // the first refusal, and those of what is remembered
					resp, err := client.Post(srv.URL+"/v2/private/blobs/uploads/", "", nil)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.EqualError(t, authretry.Explain(resp), fmt.Sprintf("authretry: %s answered 401: registry: without credentials this is not allowed, or does not exist; "+
						"none were found for %q: %s", srv.URL, host, strings.ReplaceAll(want, "HOST", host)))
					r, _ := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
					require.Equal(t, authretry.ReasonNoCredentials, r.Reason)
				}
			})
		}
	}
}

// The command that is printed logs in where the credentials were looked for, whatever the folder is called.
func TestCommandThatLogsIn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the words of a command are quoted as a Unix shell takes them")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, "")
	}
	own := filepath.Join(home, ".docker", "config.json")
	for _, c := range []struct{ path, origin, want string }{
		{own, "https://r.example.com", "docker login r.example.com"},
		{own, "https://registry-1.docker.io", "docker login"},
		{"etc/myapp/config.json", "https://r.example.com:5000", "docker --config HOME/etc/myapp login r.example.com:5000"},
		{"etc/myapp/config.json", "https://index.docker.io", "docker --config HOME/etc/myapp login"},
		{"my app/it's $x/config.json", "https://r.example.com", `docker --config 'HOME/my app/it'\''s $x' login r.example.com`},
		{"etc/auth.json", "https://r.example.com", "podman login --authfile HOME/etc/auth.json r.example.com"},
		{"etc/my auth", "https://registry-1.docker.io", "podman login --authfile 'HOME/etc/my auth' docker.io"},
		{"auth.json", "http://[::1]:5000", "podman login --authfile HOME/auth.json '[::1]:5000'"},
	} {
		path := c.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(home, path)
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(`{}`), 0o600))
		_, _, err := registry.DockerConfig(path)(t.Context(), authretry.CredentialsRequest{Origin: c.origin})
		require.ErrorContains(t, err, `; run "`+strings.ReplaceAll(c.want, "HOME", home)+`"`)
	}

	// By a relative path, too, and with the usual file elsewhere.
	t.Chdir(home)
	_, _, err := registry.DockerConfig("auth.json")(t.Context(), authretry.CredentialsRequest{Origin: "https://r.example.com"})
	require.ErrorContains(t, err, "auth.json has none; run \"podman login --authfile "+filepath.Join(home, "auth.json"))
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, "etc", "myapp"))
	_, _, err = registry.DockerConfig("")(t.Context(), authretry.CredentialsRequest{Origin: "https://r.example.com"})
	require.ErrorContains(t, err, `; run "docker login r.example.com"`)

	// Of a user without a home.
	t.Setenv("HOME", "")
	t.Setenv("DOCKER_CONFIG", "")
	_, _, err = registry.DockerConfig(own)(t.Context(), authretry.CredentialsRequest{Origin: "https://r.example.com"})
	require.ErrorContains(t, err, "docker --config ")
}

// none returns a func that has no credentials, and says why.
func none(why string) authretry.CredentialsFunc {
	return func(context.Context, authretry.CredentialsRequest) (string, string, error) {
		return "", "", fmt.Errorf("%w: %s", authretry.ErrUnsupportedChallenge, why)
	}
}

// inHome returns where configurations are looked for below a home.
func inHome(home string) string {
	return filepath.Join(home, ".docker", "config.json") + ", " + filepath.Join(home, ".config", "containers", "auth.json")
}

// A login counts soon after it, as the error has asked for it, although the token that was had without is still good.
func TestLoginAfterMissingCredentials(t *testing.T) {
	for _, noCodes := range []bool{false, true} {
		t.Run(fmt.Sprint("without codes: ", noCodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := authtest.NewPipeServer(&authtest.Registry{Username: user, Password: password, Public: []string{"public"}, TokenLifetime: time.Hour, NoCodes: noCodes})
				defer srv.Close()
				var isLoggedIn atomic.Bool
				transport := authretry.New(&registry.Scheme{HTTPClient: srv.Client(), Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
					if !isLoggedIn.Load() {
						return "", "", authretry.ErrUnsupportedChallenge
					}
					return user, password, nil
				}})
				transport.Base = srv.Client().Transport
				get := func() int {
					resp, err := (&http.Client{Transport: transport}).Get(srv.URL + "/v2/private/manifests/latest")
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					if resp.StatusCode == 401 {
						require.ErrorContains(t, authretry.Explain(resp), "Scheme.Credentials returns none for it")
					}
					return resp.StatusCode
				}
				for range 60 { // requests of a minute
					require.Equal(t, 401, get())
					time.Sleep(time.Second)
				}
				require.LessOrEqual(t, len(srv.TokenRequests()), 8)
				isLoggedIn.Store(true)
				for range 30 {
					time.Sleep(time.Second)
					if get() == 200 {
						return
					}
				}
				t.Error("the login does not count after half a minute")
			})
		})
	}
}

// A token that does not suffice although there were credentials, or that the registry does not know, is another matter.
func TestOtherRefusalsAreNotForCredentials(t *testing.T) {
	denied := newLab(t, &authtest.Registry{Grant: readOnly, Public: []string{"public"}})
	resp, err := denied.client.Post(denied.server.URL+"/v2/public/blobs/uploads/", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	r, _ := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
	require.Equal(t, authretry.ReasonInsufficientScope, r.Reason)

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprint(w, `{"token":"t"}`)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="s",scope="repository:a:pull",error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	resp, err = (&http.Client{Transport: authretry.New(&registry.Scheme{})}).Get(srv.URL + "/v2/a/manifests/latest")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.ErrorContains(t, authretry.Explain(resp), "the Bearer credentials were refused")
}

// What is public needs no credentials, and does not get the better of what is not.
func TestPublicAndPrivate(t *testing.T) {
	l := newLab(t, &authtest.Registry{Public: []string{"library/", "lab/open"}, Grant: func(_, resource string, actions []string) []string {
		if resource == "repository:library/alpine" {
			return nil
		}
		return actions
	}})
	get := func(client *http.Client, method, repository string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, l.server.URL+"/v2/"+repository+"/manifests/latest", nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	nobody := &http.Client{Transport: authretry.New(&registry.Scheme{})}
	for _, c := range []struct {
		method, repository string
		nobody, user       int
	}{
		{"GET", "library/alpine", 200, 200},
		{"PUT", "library/alpine", 401, 401},
		{"GET", "lab/open", 200, 200},
		{"PUT", "lab/open", 401, 200},
		{"GET", "lab/openly", 401, 200},
		{"GET", "lab/open/below", 401, 200},
		{"GET", "library", 401, 200},
	} {
		require.Equal(t, []int{c.nobody, c.user}, []int{get(nobody, c.method, c.repository), get(l.client, c.method, c.repository)}, "%s %s", c.method, c.repository)
	}
	_, err := (&http.Client{Transport: authretry.New(&registry.Scheme{Credentials: returning(user, "wrong")})}).Get(l.server.URL + "/v2/lab/open/manifests/latest")
	require.ErrorIs(t, err, authretry.ErrLoginRequired, "a wrong password is no anonymous pull")
}
