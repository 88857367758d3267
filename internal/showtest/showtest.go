// Package showtest checks that no exported type of a package shows a secret when it is printed.
package showtest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Secret is what the values have wherever they have a secret.
const Secret = "hunter2-correct-horse"

// Types fails the test if a value shows the Secret by any verb of package fmt, in JSON or in a log; and if an exported
// type of the package in the folder is neither among the values, by its name, nor among those that have no secret. A
// type may have several values, in an []any.
func Types(t *testing.T, folder string, values map[string]any, without ...string) {
	t.Helper()
	declared := exported(t, folder)
	for _, name := range declared {
		if _, ok := values[name]; !ok && !slices.Contains(without, name) {
			t.Errorf("%s is a new type: give a value with secrets, or say that it has none", name)
		}
	}
	for name, value := range values {
		if !slices.Contains(declared, name) {
			t.Errorf("there is no type %s any more", name)
		}
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			if fmt.Sprint(v) == "" {
				t.Errorf("%T shows nothing at all", v)
			}
			for how, text := range Printed(v) {
				if Shows(text) {
					t.Errorf("%T shows a secret by %s: %s", v, how, text)
				}
			}
		}
	}
}

// exported returns the names of the exported types that are declared in the folder.
func exported(t *testing.T, folder string) (names []string) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				for _, s := range g.Specs {
					if name := s.(*ast.TypeSpec).Name.Name; ast.IsExported(name) {
						names = append(names, name)
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("no types in %s", folder)
	}
	return names
}

// Printed returns what becomes of v as text, by how: alone, in a list, and in a struct. It leaves out %p and %w, by which
// package fmt prints the fields of whatever is neither a pointer nor an error, without asking; go vet reports them.
func Printed(v any) map[string]string {
	texts := map[string]string{}
	for _, verb := range "vsqxXdtbcoOeEfFgGU" {
		for _, flags := range []string{"", "+", "#", " ", "0", "-", "40", "+40.3"} {
			format := "%" + flags + string(verb)
			texts[format] = fmt.Sprintf(format, v)
			texts[format+" of a list"] = fmt.Sprintf(format, []any{v})
			texts[format+" of a struct"] = fmt.Sprintf(format, struct{ V any }{v})
		}
	}
	plain, err := json.Marshal(v)
	texts["JSON"] = fmt.Sprint(string(plain), err)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
	texts["slog"] = log.String()
	if err, ok := v.(error); ok {
		texts["Error"] = err.Error()
	}
	return texts
}

// The forms in which a text may have the Secret: those in which case does not count, and base64.
var lowered, encoded = forms()

func forms() (lowered, encoded []string) {
	for _, form := range []string{Secret, hex.EncodeToString([]byte(Secret)), fmt.Sprintf("% x", Secret), fmt.Sprintf("%# x", Secret), fmt.Sprintf("%d", []byte(Secret))} {
		lowered = append(lowered, strings.Trim(form, "[]"))
	}
	for i := range 3 { // wherever in a longer text it begins
		code := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", i) + Secret))
		encoded = append(encoded, code[4:len(code)-4])
	}
	return lowered, encoded
}

// Shows reports whether a text has the Secret in it, as it is or in a code.
func Shows(text string) bool {
	has := func(text string) func(form string) bool {
		return func(form string) bool { return strings.Contains(text, form) }
	}
	return slices.ContainsFunc(lowered, has(strings.ToLower(text))) || slices.ContainsFunc(encoded, has(text))
}
