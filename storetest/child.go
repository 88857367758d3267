package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
)

// childVariable is the environment variable by which a process is told what it is to do.
const childVariable = "STORETEST_CHILD"

// hooked tells newCheck, which cannot find it out in another way, whether Child was called.
var hooked atomic.Bool

// Child is to be called first in TestMain. It lets the test binary be one of the processes that share a store: in one that was
// started by [Run] or [Check] it does what that process is for, and ends it. In all others it does nothing.
func Child(open OpenFunc) {
	hooked.Store(true)
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	if err := j.do(open); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A job is what another process is to do.
type job struct {
	Role    string
	Place   string
	Times   int    // for counting
	Guard   string // a file that is there while somebody has the lock
	MaxSize int
}

// do carries the job out. It says on standard output how far it has come, a line for each step.
func (j job) do(open OpenFunc) error {
	opened, err := open(j.Place)
	if err != nil {
		return err
	}
	k := &check{Options: Options{MaxSize: j.MaxSize}}
	s := store{k, opened}
	ctx := context.Background()
	switch j.Role {
	case "load":
		n, err := numberOf(must(s.Load(ctx)))
		if err != nil {
			return err
		}
		fmt.Println(n)
	case "count":
		c := counter{s, func() (func(), bool) { return guard(j.Guard) }, func(clause, string, ...any) { fmt.Println("overlap") }}
		for range j.Times {
			n, err := c.add()
			if err != nil {
				return err
			}
			fmt.Println(n)
		}
	case "wait":
		fmt.Println("waiting")
		if err := s.Update(ctx, keeping); err != nil {
			return err
		}
		fmt.Println("done")
	case "hold":
		return holdAsChild(s)
	case "log out":
		return (&authretry.TokenSource{Store: s.TokenStore}).Logout(ctx)
	case "lock login":
		if _, err := opened.(loginLocker).LockLogin(ctx); err != nil {
			return err
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return nil
}

func must(r *authretry.Record, err error) *authretry.Record {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	return r
}

// holdAsChild has the lock until standard input ends. It confirms once, and saves the next Record.
func holdAsChild(s store) error {
	err := s.Update(context.Background(), func(ctx context.Context, current *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
		n, err := numberOf(current)
		if err != nil {
			return nil, err
		}
		fmt.Println("entered")
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadString('\n'); err != nil {
			return nil, err
		}
		if err := confirm(ctx); err != nil {
			return nil, err
		}
		fmt.Println("confirmed")
		if _, err := in.ReadString('\n'); err != nil {
			return nil, err
		}
		return s.k.numbered(n + 1), nil
	})
	if err == nil {
		fmt.Println("saved")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// guard makes a file that must not be there yet, and is removed by leave.
func guard(path string) (leave func(), alone bool) {
	if path == "" {
		return func() {}, true
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return func() {}, !errors.Is(err, fs.ErrExist)
	}
	f.Close()
	return func() { os.Remove(path) }, true
}

// A child is another process that shares a store.
type child struct {
	k     *check
	role  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // what it says; closed when that ends
	ended sync.Once
}

// start starts another process. If that fails, it ends the case.
func (k *check) start(j job) *child {
	j.MaxSize = k.MaxSize
	text, err := json.Marshal(j)
	exe, err2 := os.Executable()
	if err = errors.Join(err, err2); err != nil {
		k.misused("there is no other process: %v", err)
		runtime.Goexit()
	}
	c := &child{k: k, role: j.Role, cmd: exec.Command(exe), lines: make(chan string, 1024)}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	c.stdin, err = c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err = errors.Join(err, err2); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		k.misused("there is no other process: %v", err)
		runtime.Goexit()
	}
	go func() {
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	return c
}

// says waits for what the process says next, and reports if that is not want.
func (c *child) says(cl clause, want string) bool {
	line, ok := c.next(cl)
	if !ok || line != want {
		c.k.broken(cl, "another process (%s) says %q rather than %q", c.role, line, want)
	}
	return ok && line == want
}

// next waits for what the process says next; false if that has ended.
func (c *child) next(cl clause) (line string, ok bool) { return c.nextAfter(1, cl) }

// nextAfter is next for a process whose call may have to wait for others, with so many calls in all.
func (c *child) nextAfter(calls time.Duration, cl clause) (line string, ok bool) {
	c.k.in(c.k.LockTTL+calls*c.k.limit, cl, "another process ("+c.role+")", func() { line, ok = <-c.lines })
	if hasSecret(line) {
		c.k.broken(clauseErrors, "an error has a token in it: %s", line)
	}
	return line, ok
}

// goOn lets the process take its next step.
func (c *child) goOn() { _, _ = io.WriteString(c.stdin, "\n") }

// kill kills the process, and returns what it has still said.
func (c *child) kill() (lines []string) {
	c.ended.Do(func() {
		_ = c.cmd.Process.Kill()
		for line := range c.lines {
			lines = append(lines, line)
		}
		_ = c.cmd.Wait()
	})
	return lines
}

// checkProcesses has other processes share a place.
func checkProcesses(k *check) {
	const processes, goroutines, times = 4, 2, 10
	if k.OneProcess {
		return
	}
	known, place := len(k.Errs()), k.newPlace()
	s := k.storeAt(place)
	if !s.save(k.numbered(1)) {
		return
	}
	loads := func(want, when string) {
		c := k.start(job{Role: "load", Place: place})
		defer c.kill()
		if line, _ := c.next(clauseLockFree); line != want {
			k.broken(clauseNone, "another process loads %q rather than %q, %s", line, want, when)
		}
	}
	loads("1", "after one has saved")
	h := s.hold(k.numbered(2))
	loads("1", "while one has the lock")
	waiting := k.start(job{Role: "wait", Place: place})
	defer waiting.kill()
	waiting.says(clauseReturns, "waiting")
	select {
	case line := <-waiting.lines:
		k.broken(clauseKeepsOut, "another process gets the lock, which one has here: %s", line)
	case <-time.After(100*time.Millisecond + 2*k.LockTTL):
	}
	if err := h.release(); err != nil {
		k.broken(clauseSaves, "Update failed, for whose lock another process waited: %v", err)
	}
	waiting.says(clauseFree, "done")
	loads("2", "after one has saved again")

	guardFile := filepath.Join(k.newFolder(), "guard")
	var all sync.WaitGroup
	for range processes {
		c := k.start(job{Role: "count", Place: place, Times: times, Guard: guardFile})
		defer c.kill()
		all.Go(func() {
			for {
				switch line, ok := c.nextAfter(4, clauseReturns); { // locks need not be fair
				case !ok:
					return
				case line == "overlap":
					k.broken(clauseKeepsOut, "two had the lock at once")
				case strings.HasPrefix(line, "error:"):
					k.broken(clauseKeepsOut, "Update failed beside other processes: %s", line)
				}
			}
		})
	}
	for range goroutines {
		c := counter{k.storeAt(place), func() (func(), bool) { return guard(guardFile) }, k.broken}
		all.Go(func() {
			for range times {
				if _, err := c.add(); err != nil {
					c.s.look(err)
					k.broken(clauseKeepsOut, "Update failed beside other processes: %v", err)
				}
			}
		})
	}
	k.in(k.limit*times, clauseReturns, "counting by several processes", all.Wait)
	if n := s.number(); n != 2+(processes+goroutines)*times && n >= 0 && len(k.Errs()) == known {
		k.broken(clauseCurrent, "%d calls of Update by several processes have counted to %d", (processes+goroutines)*times, n-2)
	}
}

// numberIn returns the last number among lines, 0 if there is none.
func numberIn(lines []string) (last int) {
	for _, line := range lines {
		if n, err := strconv.Atoi(line); err == nil {
			last = n
		}
	}
	return last
}
