//go:build unix

package redisstore

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A proxy stands between a client and a server, and can hold back what either says.
type proxy struct {
	addr              string
	requests, answers valve
}

// through returns a proxy to the server at addr, for as long as the test lasts, and a client that uses it.
func through(t *testing.T, addr string) (*proxy, *redis.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String()}
	var conns sync.Map
	t.Cleanup(func() {
		l.Close()
		p.requests.open()
		p.answers.open()
		conns.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			conns.Store(client, nil)
			conns.Store(server, nil)
			go pass(server, client, &p.requests)
			go pass(client, server, &p.answers)
		}
	}()
	client := redis.NewClient(&redis.Options{Addr: p.addr, ReadTimeout: 20 * time.Second}) // nor does it go by contexts
	t.Cleanup(func() { client.Close() })
	return p, client
}

func pass(to, from net.Conn, v *valve) {
	defer to.Close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		v.pass()
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// A valve is open until it is closed.
type valve struct {
	mu     sync.Mutex
	closed chan struct{} // nil if it is open
	stuck  []chan struct{}
}

func (v *valve) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed == nil {
		v.closed = make(chan struct{})
	}
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed != nil {
		v.stuck = append(v.stuck, v.closed)
	}
	for _, c := range v.stuck {
		close(c)
	}
	v.closed, v.stuck = nil, nil
}

// openForOthers opens the valve for those who are not waiting yet.
func (v *valve) openForOthers() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stuck, v.closed = append(v.stuck, v.closed), nil
}

// pass waits until the valve is open.
func (v *valve) pass() {
	v.mu.Lock()
	closed := v.closed
	v.mu.Unlock()
	if closed != nil {
		<-closed
	}
}
