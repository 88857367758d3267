//go:build unix

// Package pgtest runs a PostgreSQL, and a PgBouncer before it, for tests and benchmarks: Debian's, on the loopback interface, in a
// folder of its own, by any user.
package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrNotInstalled means that there is no such program on this machine.
var ErrNotInstalled = errors.New("PostgreSQL or PgBouncer is not installed")

// A Server is a PostgreSQL that trusts everybody. It has one user, "owner".
type Server struct {
	dir, port, bin string

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil: it does not run
	over chan struct{} // closed when it has ended
}

// program returns the path of a program.
func program(patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", ErrNotInstalled
}

// command returns one that is run by a user who is not root, whom PostgreSQL and PgBouncer refuse, in a folder of that one's own.
func command(dir, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if os.Geteuid() != 0 {
		return cmd, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd, os.Chown(dir, uid, gid)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Start makes a server, and runs it until Close is called.
func Start() (s *Server, err error) {
	initdb, err := program("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	s = &Server{bin: filepath.Dir(initdb)}
	if s.dir, err = os.MkdirTemp("/tmp", "pgtest-"); err != nil { // a folder that others may enter
		return nil, err
	}
	cmd, err := command(s.dir, initdb, "-D", s.data(), "-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if err == nil {
		var output []byte
		if output, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("initdb: %w: %s", err, output)
		}
	}
	for tries := 0; err == nil && tries < 3; tries++ { // since somebody else may take a port that was free
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.Run(); err == nil {
			return s, nil
		}
		if errors.Is(err, errEnded) && tries < 2 {
			err = nil
		}
	}
	s.Close()
	return nil, errors.Join(errors.New("PostgreSQL does not start"), err)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Run runs the server again after Kill, and waits until it answers.
func (s *Server) Run() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 20 { // since the last processes of one that was killed may still be there
		if err = s.run(); !errors.Is(err, errEnded) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func (s *Server) run() error {
	cmd, err := command(s.dir, filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", s.port, "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "log_min_messages=fatal")
	if err != nil {
		return err
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.over = cmd, make(chan struct{})
	go func(over chan struct{}) {
		_ = cmd.Wait()
		close(over)
	}(s.over)
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ready, err := command(s.dir, filepath.Join(s.bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", s.port)
		if err == nil && ready.Run() == nil {
			return nil
		}
		select {
		case <-s.over:
			return fmt.Errorf("%w: %s", errEnded, &output)
		default:
		}
	}
	return errors.New("PostgreSQL does not answer")
}

var errEnded = errors.New("PostgreSQL has ended")

// Kill kills the server, and those of its processes that have connections, as when its machine crashes.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.over
		s.cmd = nil
	}
}

// Close kills the server, and removes what it has left.
func (s *Server) Close() {
	s.Kill()
	os.RemoveAll(s.dir)
}

// Signal sends a signal to all processes of the server.
func (s *Server) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return err
	}
	for _, child := range bytes.Fields(children) {
		if n, err := strconv.Atoi(string(child)); err == nil {
			_ = syscall.Kill(n, sig) // which may have gone
		}
	}
	return nil
}

// DSN returns the connection string of a user.
func (s *Server) DSN(user string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%s/postgres?sslmode=disable&connect_timeout=5", user, s.port)
}

// Pool runs a PgBouncer in transaction mode before the server, until end is called. It returns the connection string of a user.
func (s *Server) Pool(user string) (dsn string, end func(), err error) {
	bouncer, err := program("/usr/sbin/pgbouncer")
	if err != nil {
		return "", nil, err
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("/tmp", "pgtest-")
	if err != nil {
		return "", nil, err
	}
	err = os.WriteFile(filepath.Join(dir, "users.txt"), fmt.Appendf(nil, "%q \"\"\n", user), 0o644)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bouncer.ini"), fmt.Appendf(nil, `[databases]
postgres = host=127.0.0.1 port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s/users.txt
pool_mode = transaction
default_pool_size = 10
max_client_conn = 500
`, s.port, port, dir), 0o644)
	}
	var cmd *exec.Cmd
	if err == nil {
		cmd, err = command(dir, bouncer, "-q", filepath.Join(dir, "bouncer.ini"))
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
	}
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			return fmt.Sprintf("postgres://%s@127.0.0.1:%s/postgres?sslmode=disable&default_query_exec_mode=exec", user, port), end, nil
		}
	}
	end()
	return "", nil, errors.New("PgBouncer does not answer")
}
