// Package dnstest has a name server for tests, and a sentinel that sees whether anybody comes.
package dnstest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// Resolver returns a resolver that asks a name server of its own, which knows the A records of the names (with a dot at the
// end), and a func that changes those of one. It lives as long as the test.
func Resolver(t testing.TB, names map[string][]string) (resolver *net.Resolver, set func(name string, addrs ...string)) {
	t.Helper()
	var mu sync.Mutex
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			mu.Lock()
			answer := answerDNS(buf[:n], names)
			mu.Unlock()
			conn.WriteTo(answer, from)
		}
	}()
	resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	return resolver, func(name string, addrs ...string) {
		mu.Lock()
		defer mu.Unlock()
		names[name] = addrs
	}
}

// answerDNS answers a query for A records (RFC 1035 §4), with the name as it came.
func answerDNS(query []byte, names map[string][]string) []byte {
	end, name := 12, ""
	for query[end] != 0 {
		name += string(query[end+1:end+1+int(query[end])]) + "."
		end += 1 + int(query[end])
	}
	end += 5
	answer := append([]byte(nil), query[:end]...)
	answer[2], answer[3] = 0x84, 0 // an authoritative response
	for i := 6; i < 12; i++ {
		answer[i] = 0
	}
	addrs, known := names[strings.ToLower(name)]
	if !known {
		answer[3] = 3 // NXDOMAIN
	}
	if binary.BigEndian.Uint16(query[end-4:]) != 1 { // not A
		return answer
	}
	answer[7] = byte(len(addrs))
	for _, addr := range addrs {
		a := netip.MustParseAddr(addr).As4()
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, a[:]...)
	}
	return answer
}
