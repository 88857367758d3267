package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// copies is where authretry and what it imports seem to be while net/http is tested: a package of the standard library
// can't import any other.
const copies = "net/http/internal/copies"

// buildNetHTTPTests compiles the tests of net/http, changed so that each RoundTripper goes through testingWrap of
// testdata/nethttp. Nothing is changed in GOROOT: the go command reads the changed files in place of its own.
func buildNetHTTPTests(t *testing.T) netHTTPTests {
	t.Helper()
	src := filepath.Join(strings.TrimSpace(goCommand(t, "env", "GOROOT")), "src")
	dir := filepath.Join(src, "net", "http")
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	require.NoError(t, err)
	if !slices.Contains(tests, filepath.Join(dir, "transport_test.go")) {
		servers.Missing(t, "GOROOT has no tests of net/http")
	}

	o := overlay{t, t.TempDir(), map[string]string{}}
	imports := o.addCopies(src)
	direct := 0
	for _, file := range tests {
		content := wrapRoundTrips(t, file)
		direct += bytes.Count(content, []byte("testingWrap("))
		o.add(file, content)
	}
	require.Positive(t, direct, "net/http has changed: its tests do not call RoundTrip")
	o.add(filepath.Join(dir, "client.go"), renameTransport(t, filepath.Join(dir, "client.go")))
	for _, name := range []string{"wrap.go", "wrap_test.go"} {
		o.add(filepath.Join(dir, name), replaceImports(t, filepath.Join("testdata", "nethttp", name), imports))
	}

	program := filepath.Join(o.dir, "nethttp.test")
	goCommand(t, "test", "-c", "-vet=off", "-overlay", o.write(), "-o", program, "net/http")
	return netHTTPTests{program, dir}
}

// goCommand returns what the go command writes.
func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go %s said %s", strings.Join(args, " "), &stderr)
	return string(out)
}

// An overlay is what "go build -overlay" reads: files that stand in for others, or for none.
type overlay struct {
	t       *testing.T
	dir     string            // where the files are
	Replace map[string]string // the path that the go command sees: the file
}

func (o *overlay) add(file string, content []byte) {
	name := filepath.Join(o.dir, strconv.Itoa(len(o.Replace))+".go")
	require.NoError(o.t, os.WriteFile(name, content, 0o600))
	o.Replace[file] = name
}

// write returns the name of the overlay's own file.
func (o *overlay) write() string {
	content, err := json.Marshal(o)
	require.NoError(o.t, err)
	name := filepath.Join(o.dir, "overlay.json")
	require.NoError(o.t, os.WriteFile(name, content, 0o600))
	return name
}

// addCopies adds authretry and all that it imports from outside the standard library, and returns the import paths of
// the copies by those of the originals.
func (o *overlay) addCopies(src string) map[string]string {
	type goPackage struct {
		ImportPath, Dir string
		GoFiles         []string
		Standard        bool
	}
	var packages []goPackage
	imports := map[string]string{}
	list := json.NewDecoder(strings.NewReader(goCommand(o.t, "list", "-deps", "-json", "github.com/authretry/authretry")))
	for {
		var p goPackage
		err := list.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(o.t, err)
		if !p.Standard {
			packages = append(packages, p)
			imports[p.ImportPath] = path.Join(copies, p.ImportPath)
		}
	}
	for _, p := range packages {
		for _, name := range p.GoFiles {
			file := filepath.Join(src, filepath.FromSlash(imports[p.ImportPath]), name)
			o.add(file, replaceImports(o.t, filepath.Join(p.Dir, name), imports))
		}
	}
	return imports
}

// replaceImports returns the file with other import paths.
func replaceImports(t *testing.T, file string, imports map[string]string) []byte {
	return edit(t, file, func(f *ast.File, replace replaceFunc) {
		for _, spec := range f.Imports {
			importPath, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if other, ok := imports[importPath]; ok {
				replace(spec.Path.Pos(), spec.Path.End(), strconv.Quote(other))
			}
		}
	})
}

// wrapRoundTrips returns the file with x.RoundTrip(req) made testingWrap(x).RoundTrip(req), whatever x is.
func wrapRoundTrips(t *testing.T, file string) []byte {
	return edit(t, file, func(f *ast.File, replace replaceFunc) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "RoundTrip" {
				replace(method.X.Pos(), method.X.Pos(), "testingWrap(")
				replace(method.X.End(), method.X.End(), ")")
			}
			return true
		})
	})
}

// renameTransport returns client.go with Client.transport made Client.ownTransport, for another to take its name: it
// is where a Client gets its RoundTripper from.
func renameTransport(t *testing.T, file string) []byte {
	found := 0
	content := edit(t, file, func(f *ast.File, replace replaceFunc) {
		for _, d := range f.Decls {
			if m, ok := d.(*ast.FuncDecl); ok && m.Recv != nil && m.Name.Name == "transport" {
				replace(m.Name.Pos(), m.Name.End(), "ownTransport")
				found++
			}
		}
	})
	require.Equal(t, 1, found, "net/http has changed: client.go has no method Client.transport")
	return content
}

// replaceFunc puts text in the place of what a file has from pos to end.
type replaceFunc func(pos, end token.Pos, text string)

// edit returns the file as changed by visit, which has to go through it from top to bottom.
func edit(t *testing.T, file string, visit func(*ast.File, replaceFunc)) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, content, parser.SkipObjectResolution)
	require.NoError(t, err)

	var edited bytes.Buffer
	done := 0
	visit(f, func(pos, end token.Pos, text string) {
		from := fset.PositionFor(pos, false).Offset
		edited.Write(content[done:from])
		edited.WriteString(text)
		done = fset.PositionFor(end, false).Offset
	})
	edited.Write(content[done:])
	return edited.Bytes()
}
