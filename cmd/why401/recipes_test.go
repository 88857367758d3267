package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// TestRecipes compiles each recipe as it is printed, and runs it, if all is to be tried, against a server that wants just that.
func TestRecipes(t *testing.T) {
	_, err := exec.LookPath("go")
	require.NoError(t, err)
	bearer := &authtest.Bearer{ClientID: "c", ClientSecret: password, Scope: "treasure:read"}
	proof := &authtest.DPoP{}
	servers := map[string]*authtest.Server{
		"Basic":              authtest.NewServer(&authtest.Basic{Username: "Aladdin", Password: password}),
		"Digest":             authtest.NewServer(&authtest.Digest{Username: "Aladdin", Password: password}),
		"Bearer":             authtest.NewServer(&authtest.APIKey{Prefix: "Bearer", Key: token}),
		"insufficient_scope": authtest.NewServer(bearer),
		"DPoP":               authtest.NewServer(proof),
		"ApiKey":             authtest.NewServer(&authtest.APIKey{Prefix: "ApiKey", Key: apiKey}),
		"Token":              authtest.NewServer(&authtest.APIKey{Prefix: "Token", Key: apiKey}),
		"Sesame":             authtest.NewServer(&authtest.APIKey{Prefix: "Sesame", Key: apiKey}),
		"registry":           authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: password}),
		"proxy":              nil, // authtest has none; see below
		"metadata":           nil, // it asks a person
		"bound":              nil, // so does it
	}
	for _, server := range servers {
		if server != nil {
			t.Cleanup(server.Close)
		}
	}
	challenges := map[string]string{
		"insufficient_scope": `Bearer error="insufficient_scope", scope="treasure:read"`,
		"registry":           `Bearer realm="https://auth.test/token", service="s", scope="repository:a:pull"`,
		"metadata":           `Bearer resource_metadata="https://api.test/.well-known/oauth-protected-resource"`,
		"bound":              `DPoP resource_metadata="https://api.test/.well-known/oauth-protected-resource"`,
		"proxy":              "Basic realm=x",
	}
	var code strings.Builder
	for _, name := range slices.Sorted(maps.Keys(servers)) { // in order, so that the compiler finds its cache
		challenge := challenges[name]
		if challenge == "" {
			challenge = name
		}
		var clean cleaner
		list, _, _ := clean.challenges([]string{challenge}, name == "proxy")
		for line := range strings.Lines(list[0].Snippet) {
			require.LessOrEqual(t, len(line), 75, "it fits on a screen: %s", line)
		}
		fmt.Fprintf(&code, "\nfunc recipe%s() *http.Client {\n%s\nreturn client\n}\n", strings.ReplaceAll(name, "_", ""), list[0].Snippet)
	}
	for _, s := range schemes { // those that are as others, too
		if elsewhere := moduleOf(s.recipe); elsewhere != "" {
			text, err := os.ReadFile("../../" + elsewhere + "/example_test.go")
			require.NoError(t, err)
			require.Contains(t, withoutSpace(string(text)), withoutSpace(s.recipe.scheme), "its module compiles it")
			require.Contains(t, withoutSpace(string(text)), withoutSpace(dialerOf(s.recipe.proxy)))
			continue
		}
		fmt.Fprintf(&code, "\nfunc scheme%s() *http.Client {\n%s\n}\n", strings.ReplaceAll(s.name, "-", ""), orElse(s.recipe.code(false), "var client *http.Client")+"\nreturn client")
	}
	for i, expression := range codeInTexts(t) {
		fmt.Fprintf(&code, "\nvar expression%d = %s\n", i, expression)
	}
	code.WriteString("\nfunc recipehttp2() *http.Client {\n" + overHTTP1 + "\nreturn &http.Client{Transport: base}\n}\n")
	program := build(t, code.String(), servers)
	if program == "" {
		return
	}

	t.Run("proxy", func(t *testing.T) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("Aladdin:"+password))
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Proxy-Authorization") != want {
				says(407, `Proxy-Authenticate: Basic realm="way out"`)(w, r)
			}
		}))
		defer proxy.Close()
		cmd := exec.Command(program, "proxy", "http://api.example.com/")
		cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy.URL, "API_USER=Aladdin", "API_PASSWORD="+password)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, "200 OK\n", string(out))
	})
	t.Run("http2", func(t *testing.T) { // the base offers HTTP/1.1 alone to a server that would take either
		if runtime.GOOS != "linux" {
			t.Skip("SSL_CERT_FILE is not looked at here")
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 1 {
				w.WriteHeader(http.StatusHTTPVersionNotSupported)
			}
		}))
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		authority := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
		cmd := exec.Command(program, "http2", server.URL)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+authority)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, "200 OK\n", string(out))
	})

	dir := t.TempDir()
	for name, server := range servers {
		if server == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			at := "/"
			env := []string{"API_USER=Aladdin", "API_PASSWORD=" + password, "API_TOKEN=" + token, "API_KEY=" + apiKey, "CLIENT_ID=c", "CLIENT_SECRET=" + password,
				"KEY_FILE=" + filepath.Join(dir, "dpop.pem"), "DOCKER_CONFIG=" + dir, "HOME=" + dir}
			switch name {
			case "insufficient_scope":
				env = append(env, "TOKEN_URL="+bearer.TokenURL())
			case "DPoP":
				env = append(env, "TOKEN_URL="+proof.TokenURL())
			case "registry":
				at = "/v2/cave/manifests/latest"
				config, err := json.Marshal(map[string]any{"auths": map[string]any{strings.TrimPrefix(server.URL, "http://"): map[string]string{"username": "Aladdin", "password": password}}})
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
			}
			cmd := exec.Command(program, name, server.URL+at)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			require.Equal(t, "200 OK\n", string(out))
		})
	}
}

// codeInTexts returns the Go expressions that are within the sentences of the reports.
func codeInTexts(t *testing.T) (list []string) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	expression := regexp.MustCompile(`func\(r \*http\.Response\) bool \{[^}]*\}|&authretry\.APIKey\{Header[^}]*\}`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		list = append(list, expression.FindAllString(strings.Join(strings.Fields(string(text)), " "), -1)...)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	require.Greater(t, len(list), 3)
	return list
}

// moduleOf returns the folder of the module that a recipe needs besides the root; "": none.
func moduleOf(r recipe) string {
	for _, m := range []string{"negotiate", "ntlm"} {
		if strings.Contains(r.scheme, m+".") {
			return m
		}
	}
	return ""
}

// dialerOf returns the literal of a dialer in code.
func dialerOf(code string) string {
	_, rest, _ := strings.Cut(code, "&ntlm.ProxyDialer{")
	literal, _, _ := strings.Cut(rest, "\n}")
	return literal
}

// withoutSpace returns code without what gofmt may change, and without comments.
func withoutSpace(code string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`(?m) // .*$`).ReplaceAllString(strings.ReplaceAll(code, ",\n}", "}"), "")), "")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// build makes a program of the recipes, which asks a URL with the client of the one that it is told. Unless all is to be tried, it
// compiles it, and returns "".
func build(t *testing.T, code string, servers map[string]*authtest.Server) (program string) {
	imports := "\"strings\"\n\"net/http\"\n\"fmt\"\n\"os\"\n"
	for _, path := range []string{"log", "golang.org/x/oauth2", "github.com/authretry/authretry", "github.com/authretry/authretry/dpop",
		"github.com/authretry/authretry/registry", "github.com/authretry/authretry/discover", "github.com/authretry/authretry/login"} {
		require.Contains(t, code, filepath.Base(path)+".")
		imports += fmt.Sprintf("%q\n", path)
	}
	main := "func main() {\nclient := map[string]func() *http.Client{\n\"http2\": recipehttp2,\n"
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		main += fmt.Sprintf("%q: recipe%s,\n", name, strings.ReplaceAll(name, "_", ""))
	}
	main += "}[os.Args[1]]()\nresp, err := client.Get(os.Args[2])\nif err != nil {\nfmt.Println(err)\nos.Exit(1)\n}\nresp.Body.Close()\nfmt.Println(resp.Status)\n}\n"

	// By an overlay it is a package of this module that is not there.
	dir := t.TempDir()
	source, overlay, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "recipes")
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nimport (\n"+imports+")\n"+code+main), 0o600))
	here, err := os.Getwd()
	require.NoError(t, err)
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "recipes", "main.go"): source}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replace, 0o600))
	if thorough.Or(false, true) { // a linker takes more time than all the rest
		out, err := exec.Command("go", "list", "-export", "-overlay", overlay, "./recipes").CombinedOutput()
		require.NoError(t, err, "%s\n%s", out, code)
		return ""
	}
	out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./recipes").CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, code)
	return program
}
