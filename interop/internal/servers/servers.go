// Package servers starts real HTTP servers for a test: each on a free port of the loopback interface, configured by a
// file that the test can read, in a temporary folder, as an unprivileged user, and stopped with the test.
//
// A server whose program is not installed skips the test, or fails it if the environment says
// AUTHRETRY_INTEROP=require, as continuous integration does.
package servers

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The credentials that every server here accepts.
const (
	Username = "Mufasa"
	Password = "Circle of Life"
	Realm    = "lab"
)

// A Server is a running server.
type Server struct {
	URL string // "http://127.0.0.1:port"
	TLS string // "https://127.0.0.1:port" with HTTP/2, or "" if it has none; CertPool trusts it
	Dir string // its folder
	CA  *CA    // nil if it has no TLS

	accessLog string // if it writes one line per request
}

// AccessLog returns the lines of the server's own log of requests, as far as they have been written. Apache writes the
// line of a request by HTTP/2 now and then only as the connection is closed: close idle connections, and wait.
func (s *Server) AccessLog(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile(s.accessLog)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading the access log: %v", err)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	return strings.FieldsFunc(string(whole), func(r rune) bool { return r == '\n' })
}

// program returns the path of an installed program or file, the first of those given, or skips the test.
func program(t testing.TB, debianPackage string, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, dir := range append([]string{""}, "/usr/sbin", "/usr/local/sbin") {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path
			}
		}
	}
	Missing(t, fmt.Sprintf("%s is not installed (Debian package %s)", names[0], debianPackage))
	return ""
}

// Missing skips the test for the reason given, or fails it if the environment says that nothing may be missing.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("AUTHRETRY_INTEROP") == "require" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// folder returns a temporary folder that an unprivileged server can reach.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	// The parent, which testing made for this test alone, is closed to others.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write makes a file below dir, and the folders above it.
func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort returns a TCP port of 127.0.0.1 that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts a server that stays in the foreground, waits until its ports answer, and stops it with the test.
func run(t testing.TB, dir string, ports []int, cmd *exec.Cmd) {
	t.Helper()
	var output bytes.Buffer // read only once cmd.Wait has returned
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &output, &output
	cmd.WaitDelay = time.Second // a grandchild may keep the pipe open
	// A process group of its own, so that workers and helpers can be ended with it; and should this test die
	// without its cleanup, as in a panic, the kernel asks the server to stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = giveToNobody(t, dir)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		group := -cmd.Process.Pid
		_ = syscall.Kill(group, syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(3 * time.Second):
		}
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-exited
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), output.Bytes())
		}
	})

	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, port := range ports {
		for !answers(port) {
			select {
			case <-exited:
				t.Fatalf("%s ended before it answered:\n%s", filepath.Base(cmd.Path), output.Bytes())
			case <-deadline:
				t.Fatalf("%s does not answer on port %d", filepath.Base(cmd.Path), port)
			case <-tick.C:
			}
		}
	}
}

func answers(port int) bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// giveToNobody makes dir the property of the user nobody, and returns that user's credentials. Servers differ in
// what they do when started by root, if they start at all; started by anybody else they are all alike.
func giveToNobody(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(uid), int(gid))
	})
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// htpasswdSHA returns a line of a password file in the form that needs no salt.
func htpasswdSHA() string {
	sum := sha1.Sum([]byte(Password))
	return Username + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

// htpasswd returns a line of a password file by the program of that name: flag says in which form.
func htpasswd(t testing.TB, flag string) string {
	t.Helper()
	line, err := exec.Command(program(t, "apache2-utils", "htpasswd"), "-nb"+flag, Username, Password).Output()
	if err != nil {
		t.Fatalf("htpasswd: %v", err)
	}
	return strings.TrimSpace(string(line)) + "\n"
}

// htdigest returns a line of a Digest password file, with MD5.
func htdigest(realm string) string {
	sum := md5.Sum([]byte(Username + ":" + realm + ":" + Password))
	return Username + ":" + realm + ":" + hex.EncodeToString(sum[:]) + "\n"
}

// htdigestSHA256 is htdigest with SHA-256.
func htdigestSHA256(realm string) string {
	sum := sha256.Sum256([]byte(Username + ":" + realm + ":" + Password))
	return Username + ":" + realm + ":" + hex.EncodeToString(sum[:]) + "\n"
}

// fill replaces {name} in a configuration by values, given as name and value in turn.
func fill(config string, namesAndValues ...any) string {
	pairs := make([]string, 0, len(namesAndValues))
	for i, v := range namesAndValues {
		if i%2 == 0 {
			pairs = append(pairs, fmt.Sprintf("{%v}", v))
		} else {
			pairs = append(pairs, fmt.Sprint(v))
		}
	}
	return strings.NewReplacer(pairs...).Replace(config)
}

func url(scheme string, port int) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
}
