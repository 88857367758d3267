package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A pack is a package with its mutants.
type pack struct {
	dir, temp string
	name      string            // of the package
	files     map[string][]byte // those that have mutants behind switches
	mutants   []*mutant
	binary    string
	passes    map[string]int   // how many mutants each test comes by
	reached   map[int][]string // the tests that come by a mutant
}

// newPack finds the mutants of a package.
func newPack(dir, files, temp string) (*pack, error) {
	p := &pack{dir: dir, temp: temp, files: make(map[string][]byte), passes: make(map[string]int), reached: make(map[int][]string)}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s has no Go files: %w", dir, err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		wanted := func(prefix string) bool { return strings.HasPrefix(base, prefix) }
		other := strings.HasSuffix(base, "_windows.go") || strings.HasSuffix(base, "_other.go") || strings.HasSuffix(base, "_test.go")
		if other || !slices.ContainsFunc(strings.Split(files, ","), wanted) {
			continue
		}
		if err := p.addFile(name); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// An insertion is a piece of text that is put into a file.
type insertion struct {
	at   int
	text string
}

// addFile finds the mutants of a file.
func (p *pack) addFile(name string) error {
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p.name = tree.Name.Name
	base := filepath.Base(name)
	var insertions []insertion
	add := func(at ast.Node, what string) (m *mutant, from, to int) {
		from, to = set.Position(at.Pos()).Offset, set.Position(at.End()).Offset
		m = &mutant{dir: p.dir, file: base, line: set.Position(at.Pos()).Line, what: what + " `" + short(string(source[from:to])) + "`"}
		p.mutants = append(p.mutants, m)
		return m, from, to
	}
	addSwitch := func(at ast.Node, what, before, after string) {
		m, from, to := add(at, what)
		m.number = len(p.mutants)
		insertions = append(insertions, insertion{from, strings.ReplaceAll(before, "#", strconv.Itoa(m.number))},
			insertion{to, strings.ReplaceAll(after, "#", strconv.Itoa(m.number))})
	}
	inits := make(map[ast.Stmt]bool) // which stand where no other statement can
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			inits[n.Init] = true
			addSwitch(n.Cond, "never", "(", ") && !mutantIs(#)")
		case *ast.SwitchStmt:
			inits[n.Init] = true
			if n.Tag != nil {
				break
			}
			for _, clause := range n.Body.List {
				for _, condition := range clause.(*ast.CaseClause).List {
					addSwitch(condition, "never", "(", ") && !mutantIs(#)")
				}
			}
		case *ast.ValueSpec:
			if len(n.Names) == 1 && len(n.Values) == 1 && (strings.HasPrefix(n.Names[0].Name, "max") || strings.HasPrefix(n.Names[0].Name, "min")) {
				m, from, to := add(n.Values[0], "a thousand times "+n.Names[0].Name+",")
				m.source = slices.Concat(source[:from], []byte("1000 * ("), source[from:to], []byte(")"), source[to:])
			}
		case *ast.ExprStmt:
			call, isCall := n.X.(*ast.CallExpr)
			if !isCall || inits[n] {
				break
			}
			if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "panic" { // which may be what a function ends with
				addSwitch(n, "without", "if !mutantIs(#) { ", " }")
			}
		}
		return true
	})
	if len(insertions) > 0 {
		p.files[base] = insert(source, insertions)
	}
	return nil
}

// insert puts pieces of text into a source. No two are at the same place.
func insert(source []byte, insertions []insertion) (changed []byte) {
	slices.SortStableFunc(insertions, func(a, b insertion) int { return cmp.Compare(a.at, b.at) })
	done := 0
	for _, i := range insertions {
		changed = append(append(changed, source[done:i.at]...), i.text...)
		done = i.at
	}
	return append(changed, source[done:]...)
}

func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 100 {
		text = text[:100] + "..."
	}
	return text
}

// switches is the file that is added to the package.
const switches = `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutantNumber  = func() int { n, _ := strconv.Atoi(os.Getenv("MUTANT")); return n }()
	mutantsPassed = os.Getenv("MUTANTS_PASSED")
	mutantPassed  [%d]atomic.Bool
)

func mutantIs(n int) bool {
	if mutantsPassed != "" {
		mutantIsPassed(n)
	}
	return n == mutantNumber
}

func mutantIsPassed(n int) {
	if mutantPassed[n].Swap(true) {
		return
	}
	if f, err := os.OpenFile(mutantsPassed, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		f.WriteString(strconv.Itoa(n) + "\n")
		f.Close()
	}
}
`

// build makes the binary of all mutants that have a switch.
func (p *pack) build() error {
	p.binary = filepath.Join(p.temp, "all.test")
	p.files["zz_switches.go"] = fmt.Appendf(nil, switches, p.name, len(p.mutants)+1)
	return p.compile(p.binary, p.files)
}

// compile makes a test binary of the package with some of its files changed.
func (p *pack) compile(binary string, files map[string][]byte) error {
	replace := make(map[string]string)
	temp, err := os.MkdirTemp(p.temp, "")
	if err != nil {
		return err
	}
	for name, source := range files {
		original, err := filepath.Abs(filepath.Join(p.dir, name))
		if err != nil {
			return err
		}
		replace[original] = filepath.Join(temp, name)
		if err := os.WriteFile(replace[original], source, 0o600); err != nil {
			return err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "overlay.json"), overlay, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-c", "-o", binary, "-overlay", filepath.Join(temp, "overlay.json"), "-vet=off", ".")
	cmd.Dir = p.dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// run runs tests; all of them if there are none.
func (p *pack) run(ctx context.Context, binary string, tests []string, env ...string) error {
	pattern := "."
	if len(tests) > 0 {
		pattern = "^(" + strings.Join(tests, "|") + ")$"
	}
	cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.run", pattern)
	cmd.Dir, cmd.Env = p.dir, append(append(os.Environ(), "AUTHRETRY_TESTS=all"), env...)
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

var isTest = regexp.MustCompile(`^(Test|Fuzz|Example)`)

// record runs each test by itself, and notes which mutants it comes by.
func (p *pack) record(timeout time.Duration) error {
	list := exec.Command(p.binary, "-test.list", ".")
	list.Dir = p.dir
	output, err := list.Output()
	if err != nil {
		return err
	}
	for _, test := range strings.Fields(string(output)) {
		if !isTest.MatchString(test) {
			continue
		}
		passed := filepath.Join(p.temp, test)
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		err := p.run(ctx, p.binary, []string{test}, "MUTANTS_PASSED="+passed)
		cancel()
		p.passes[test] = 0
		if err != nil {
			log.Printf("%s fails as it is, and is left out: %v", test, err)
			continue
		}
		f, err := os.Open(passed)
		if err != nil {
			continue // it comes by none
		}
		seen := make(map[int]bool)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if n, err := strconv.Atoi(lines.Text()); err == nil && !seen[n] {
				seen[n] = true
				p.reached[n] = append(p.reached[n], test)
			}
		}
		f.Close()
		p.passes[test] = len(seen)
	}
	log.Printf("%s: %d tests, %d mutants", p.dir, len(p.passes), len(p.mutants))
	return nil
}
