package servers

import (
	"fmt"
	"os/exec"
	"testing"
)

// Redis starts a redis-server that keeps nothing on disk, and returns its address.
func Redis(t testing.TB) string {
	t.Helper()
	path := program(t, "redis-server", "redis-server")
	dir, port := folder(t), freePort(t)
	cmd := exec.Command(path, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--dir", dir)
	run(t, dir, []int{port}, cmd)
	return fmt.Sprintf("127.0.0.1:%d", port)
}
