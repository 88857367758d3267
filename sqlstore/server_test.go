//go:build unix

package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
)

// A server is a PostgreSQL of the test's own. It has an owner of the table, and a user "app", who may do what the package comment
// says, and no more.
type server struct {
	dir  string
	port string
	bin  string
	cmd  *exec.Cmd
}

// program returns the path of a program of Debian's packages. If there is none, the test is skipped, or fails where it must
// not be.
func program(t testing.TB, patterns ...string) string {
	t.Helper()
	for _, p := range patterns {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return slices.Max(found)
		}
	}
	if os.Getenv("AUTHRETRY_INTEROP") == "require" {
		t.Fatalf("%v is not installed", patterns)
	}
	t.Skipf("%v is not installed", patterns)
	return ""
}

// somebody has a command run by a user who is not root, whom PostgreSQL and PgBouncer refuse, in a folder of that one's own.
func somebody(t testing.TB, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	require.NoError(t, err)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	require.NoError(t, os.Chown(dir, uid, gid))
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("/tmp", "sqlstore-") // which others may enter
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// start starts a PostgreSQL on the loopback interface, until the test ends.
func start(t testing.TB) *server {
	t.Helper()
	s := &server{bin: filepath.Dir(program(t, "/usr/lib/postgresql/*/bin/initdb")), dir: folder(t), port: freePort(t)}
	cmd := exec.Command(filepath.Join(s.bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	cmd.SysProcAttr, cmd.Dir = somebody(t, s.dir), s.dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(s.kill)
	s.run(t)
	for _, statement := range []string{Schema, Schema, "CREATE ROLE app LOGIN", "GRANT SELECT, INSERT, UPDATE ON authretry_logins TO app"} {
		_, err := s.owner().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	return s
}

// run runs the server, and waits until it answers.
func (s *server) run(t testing.TB) {
	t.Helper()
	var output bytes.Buffer
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-p", s.port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "log_min_messages=fatal")
	s.cmd.SysProcAttr, s.cmd.Dir = somebody(t, s.dir), s.dir
	s.cmd.Stdout, s.cmd.Stderr = &output, &output
	require.NoError(t, s.cmd.Start())
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return s.owner().PingContext(ctx) == nil
	}, 60*time.Second, 20*time.Millisecond, "%s", &output)
}

// kill kills the server, and those of its processes that have connections, as when its machine crashes.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// signal sends a signal to the server's processes.
func (s *server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, sig))
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		require.NoError(t, err)
		_ = syscall.Kill(n, sig) // which may have gone
	}
}

func (s *server) dsn(who string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%s/postgres?sslmode=disable&connect_timeout=5", who, s.port)
}

func (s *server) owner() *sql.DB { return dbAt(s.dsn("owner")) }

// store returns a store as another process would have.
func (s *server) store(name string) *Store {
	return &Store{DB: dbAt(s.dsn("app")), Name: name}
}

var dbs sync.Map // by connection string

func dbAt(dsn string) *sql.DB {
	if db, ok := dbs.Load(dsn); ok {
		return db.(*sql.DB)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	known, _ := dbs.LoadOrStore(dsn, db)
	return known.(*sql.DB)
}

// pooled starts a PgBouncer in transaction mode before the server, and returns the connection string of the user app.
func (s *server) pooled(t testing.TB) (dsn string) {
	t.Helper()
	bouncer := program(t, "/usr/sbin/pgbouncer")
	dir, port := folder(t), freePort(t)
	attr := somebody(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "users.txt"), []byte("\"app\" \"\"\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bouncer.ini"), fmt.Appendf(nil, `[databases]
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
`, s.port, port, dir), 0o644))
	cmd := exec.Command(bouncer, "-q", filepath.Join(dir, "bouncer.ini"))
	cmd.SysProcAttr, cmd.Dir = attr, dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	dsn = fmt.Sprintf("postgres://app@127.0.0.1:%s/postgres?sslmode=disable&default_query_exec_mode=exec", port)
	require.Eventually(t, func() bool { return dbAt(dsn).PingContext(t.Context()) == nil }, 10*time.Second, 20*time.Millisecond, "%s", &output)
	return dsn
}
