package authretry_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
)

// What the Go snippets of README.md take for granted. A snippet that needs more adds it here.
const aroundSnippets = `package snippet

import (
	"context"
	"crypto"
	"log"
	"net/http"
	"net/url"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
	"github.com/authretry/authretry/registry"
	"golang.org/x/oauth2"
)

var (
	_ = filestore.New
	_ = registry.DockerConfig
	_ discover.Config
	_ = login.Auto
	_ = os.Stderr
	_ = log.Print
	_ url.Values
	_ context.Context

	tokens                       *authretry.TokenSource
	config                       *oauth2.Config
	token                        *oauth2.Token
	key                          crypto.Signer
	path, user, password, secret string
	schemes                      []authretry.Scheme
	transport                    *authretry.Transport
	resp                         *http.Response
)

func userOf(context.Context) string { return "" }

func tokensOf(context.Context, string) (oauth2.TokenSource, error) { return nil, nil }
`

var goBlock = regexp.MustCompile("(?ms)^(<!-- not compiled: [^\n]+ -->\n)?```go\n(.*?)^```$")

// The Go snippets of README.md compile, but for those below a line "<!-- not compiled: why -->".
func TestSnippetsOfREADMECompile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	code := aroundSnippets
	n := 0
	for _, m := range goBlock.FindAllStringSubmatch(string(readme), -1) {
		if m[1] == "" {
			n++
			code += fmt.Sprintf("\nfunc snippet%d() {\n%s%s}\n", n, m[2], usesOf(t, m[2]))
		}
	}
	require.Equal(t, n, strings.Count(string(readme), "```go\n")-strings.Count(string(readme), "\n<!-- not compiled: "))
	require.GreaterOrEqual(t, n, 7)

	// By an overlay it is a package of this module that is not there.
	dir, wd := t.TempDir(), workingDir(t)
	source, overlay := filepath.Join(dir, "snippet.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(source, []byte(code), 0o600))
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(wd, "internal", "snippet", "snippet.go"): source}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replace, 0o600))
	out, err := exec.Command("go", "build", "-overlay", overlay, "./internal/snippet").CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, code)
}

// usesOf returns what uses the variables that a snippet declares, as the compiler demands.
func usesOf(t *testing.T, snippet string) (uses string) {
	f, err := parser.ParseFile(token.NewFileSet(), "README.md", "package p\nfunc f() {\n"+snippet+"}", 0)
	require.NoError(t, err, snippet)
	for _, statement := range f.Decls[0].(*ast.FuncDecl).Body.List {
		if assign, ok := statement.(*ast.AssignStmt); ok && assign.Tok == token.DEFINE {
			for _, left := range assign.Lhs {
				uses += "_ = " + left.(*ast.Ident).Name + "\n"
			}
		}
	}
	return uses
}

func workingDir(t *testing.T) string {
	wd, err := os.Getwd()
	require.NoError(t, err)
	return wd
}

// Each test that SECURITY.md names is there, in whichever module, and no guarantee is there twice.
func TestSECURITYNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	known, files := make(map[string]bool), make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "node_modules":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(source), -1) {
			known[m[1]] = true
		}
		files[d.Name()] = true
		return err
	})
	require.NoError(t, err)
	names := regexp.MustCompile("`((?:Test|Fuzz)\\w+|\\w+_test\\.go)`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(names), 100)
	for _, m := range names {
		require.True(t, known[m[1]] || files[m[1]], "there is no %s", m[1])
	}
	guarantees := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 4 {
			begin := cells[1][:min(len(cells[1]), 40)]
			require.False(t, guarantees[begin], "there are two guarantees that begin with %q", begin)
			guarantees[begin] = true
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// What the project's pages link to, in the project, is there.
func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	more, err := filepath.Glob("*/*.md")
	require.NoError(t, err)
	links := 0
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			path, heading, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
				require.True(t, exists(target), "%s links to %s", page, m[1])
			}
			if heading != "" {
				require.Contains(t, headingsOf(t, target), heading, "%s links to %s", page, m[1])
			}
		}
	}
	require.Greater(t, links, 30)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// headingsOf returns the anchors of a page's headings, as GitHub makes them.
func headingsOf(t *testing.T, page string) (anchors []string) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	return anchors
}

// What README.md shows of the output is what is printed.
func TestOutputsInREADME(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	report, err := os.ReadFile("cmd/why401/testdata/basic-wrong-password.txt")
	require.NoError(t, err)
	cause, rest, _ := strings.Cut(string(report), "\n")
	fix, _, _ := strings.Cut(rest, "\n")
	require.Contains(t, string(readme), "    "+cause+"\n    "+fix+"\n")

	srv := authtest.NewServer(&authtest.Digest{Username: "Mufasa", Password: "right", Realm: "films"})
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&authretry.Digest{Username: "Mufasa", Password: "wrong"})}
	resp, err := client.Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	said := strings.Replace(authretry.Explain(resp).Error(), srv.URL, "https://api.example.com", 1)
	require.Contains(t, string(readme), "\n    "+said+"\n")
}

// The table of README.md says of each Reason what to do.
func TestREADMEHasEachReason(t *testing.T) {
	source, err := os.ReadFile("rejection.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	reasons := regexp.MustCompile(`(?m)^\t(Reason[A-Z]\w+) .*//`).FindAllStringSubmatch(string(source), -1)
	require.Greater(t, len(reasons), 15)
	for _, m := range reasons {
		require.Regexp(t, "(?m)^\\| .*`"+m[1]+"`.* \\| .* \\| .* \\|$", string(readme))
	}
}
