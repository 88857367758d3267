// Mutate changes one guard of a package at a time, and lists those of which no test notices that they are gone:
//
//	go run ./internal/mutate -o internal/mutate/RESULTS.md . ./filestore ../redisstore
//
// A guard is the condition of an if or of a case in a switch without a value, which never holds then; a constant whose name
// begins with max or min, which is a thousand times as large; or a call whose result nobody uses, which is left out. Each
// mutant is compiled by way of an overlay, so nothing is written into the tree. It takes as long as the tests of the packages
// take, times the number of mutants; -n tries so many at random.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A mutant is a file with one change.
type mutant struct {
	dir, file string
	line      int
	what      string // the change
	source    []byte
}

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s", filepath.ToSlash(filepath.Join(m.dir, m.file)), m.line, m.what)
}

func main() {
	log.SetFlags(0)
	number := flag.Int("n", 0, "how many mutants of each package to try; 0: all")
	seed := flag.Uint64("seed", 1, "for the choice of those")
	files := flag.String("files", "", "only files whose names begin with one of these, with commas between them")
	timeout := flag.Duration("timeout", 5*time.Minute, "for the tests of one mutant, which are taken to have failed then")
	parallel := flag.Int("parallel", 2, "how many mutants to test at a time")
	output := flag.String("o", "", "the file for the result; if empty, standard output")
	flag.Parse()

	var report strings.Builder
	fmt.Fprintf(&report, "# Guards that no test misses\n\n`go run ./internal/mutate %s`, on %s.\n", strings.Join(os.Args[1:], " "), time.Now().UTC().Format("2006-01-02"))
	for _, dir := range flag.Args() {
		mutants, err := mutantsOf(dir, *files)
		if err != nil {
			log.Fatal(err)
		}
		if *number > 0 && len(mutants) > *number {
			rand.New(rand.NewPCG(*seed, 0)).Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
			mutants = mutants[:*number]
		}
		survivors, invalid := try(mutants, *timeout, *parallel)
		fmt.Fprintf(&report, "\n## %s\n\n%d mutants, %d of which did not compile; %d survived.\n\n", dir, len(mutants), invalid, len(survivors))
		slices.Sort(survivors)
		for _, s := range survivors {
			fmt.Fprintf(&report, "- %s\n", s)
		}
	}
	if *output == "" {
		fmt.Print(report.String())
	} else if err := os.WriteFile(*output, []byte(report.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}

// mutantsOf returns all mutants of a package.
func mutantsOf(dir, files string) (mutants []*mutant, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s has no Go files: %w", dir, err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		wanted := func(prefix string) bool { return strings.HasPrefix(base, prefix) }
		if strings.HasSuffix(name, "_test.go") || !slices.ContainsFunc(strings.Split(files, ","), wanted) {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		add := func(at ast.Node, what, before, after string) {
			from, to := set.Position(at.Pos()).Offset, set.Position(at.End()).Offset
			text := string(source[from:to])
			mutants = append(mutants, &mutant{dir, base, set.Position(at.Pos()).Line, what + " `" + short(text) + "`",
				slices.Concat(source[:from], []byte(before+text+after), source[to:])})
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				add(n.Cond, "never", "(", ") && false")
			case *ast.SwitchStmt:
				if n.Tag != nil {
					break
				}
				for _, clause := range n.Body.List {
					for _, condition := range clause.(*ast.CaseClause).List {
						add(condition, "never", "(", ") && false")
					}
				}
			case *ast.ValueSpec:
				if len(n.Names) == 1 && len(n.Values) == 1 && (strings.HasPrefix(n.Names[0].Name, "max") || strings.HasPrefix(n.Names[0].Name, "min")) {
					add(n.Values[0], "a thousand times "+n.Names[0].Name+",", "1000 * (", ")")
				}
			case *ast.ExprStmt:
				if _, isCall := n.X.(*ast.CallExpr); isCall {
					add(n, "without", "if false { ", " }")
				}
			}
			return true
		})
	}
	return mutants, nil
}

func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 100 {
		text = text[:100] + "..."
	}
	return text
}

// try runs the tests of each mutant, and returns those that pass them.
func try(mutants []*mutant, timeout time.Duration, parallel int) (survivors []string, invalid int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	queue := make(chan *mutant)
	for range parallel {
		all.Go(func() {
			for m := range queue {
				started := time.Now()
				outcome := test(m, timeout)
				mu.Lock()
				switch outcome {
				case "survived":
					survivors = append(survivors, m.String())
				case "invalid":
					invalid++
				}
				mu.Unlock()
				log.Printf("%-8s %6.1fs %s", outcome, time.Since(started).Seconds(), m)
			}
		})
	}
	for _, m := range mutants {
		queue <- m
	}
	close(queue)
	all.Wait()
	return survivors, invalid
}

// test runs the tests of one mutant.
func test(m *mutant, timeout time.Duration) (outcome string) {
	temp, err := os.MkdirTemp("", "mutant")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(temp)
	changed, overlay := filepath.Join(temp, m.file), filepath.Join(temp, "overlay.json")
	original, err := filepath.Abs(filepath.Join(m.dir, m.file))
	if err != nil {
		log.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		log.Fatal(err)
	}
	for name, data := range map[string][]byte{changed: m.source, overlay: replace} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			log.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-failfast", "-count=1", "-vet=off", "-timeout", timeout.String(), ".")
	cmd.Dir = m.dir
	output, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "survived"
	case bytes.Contains(output, []byte("[build failed]")) || bytes.Contains(output, []byte("[setup failed]")):
		return "invalid"
	}
	return "killed"
}
