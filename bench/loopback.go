package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const noAuth = "no auth"

// A meter is a listener that counts its connections, and the bytes that they read.
type meter struct {
	net.Listener
	conns, read atomic.Int64
}

func (m *meter) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m.conns.Add(1)
	return meteredConn{c, &m.read}, nil
}

type meteredConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// writesCounted is a client's connection whose writes are counted.
type writesCounted struct {
	net.Conn
	n *atomic.Int64
}

func (c writesCounted) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// A loopbackResult is what a peer needs over loopback.
type loopbackResult struct {
	name   string
	wrong  string
	hits   float64 // a request
	conns  int64
	writes float64 // of the client, a request
	ns     spread
	ratio  spread // to requests that need no credentials
}

// loopbackRow sends requests one after the other to servers on loopback, by turns to one without and one with Digest.
func loopbackRow(e effort, next bool) ([]loopbackResult, error) {
	build := map[string]func(base http.RoundTripper) http.RoundTripper{
		noAuth: func(base http.RoundTripper) http.RoundTripper { return base },
		bound: func(base http.RoundTripper) http.RoundTripper {
			return &boundDigest{base: base, hashing: md5Hashing, ha1: md5Hashing.of(username, realm, password)}
		},
	}
	for name := range digestPeers(nil) {
		build[name] = func(base http.RoundTripper) http.RoundTripper { return digestPeers(base)[name] }
	}
	return loopback(e, build, func(name string) *digestServer { return newDigestServer(md5Hashing, name != noAuth, next) }, func(url string) (*http.Request, error) {
		return http.NewRequest("GET", url, nil)
	})
}

// loopback sends requests one after the other, those of each peer to a server of its own, by turns.
func loopback(e effort, build map[string]func(base http.RoundTripper) http.RoundTripper, serve func(name string) *digestServer,
	request func(url string) (*http.Request, error),
) ([]loopbackResult, error) {
	type peer struct {
		rt     http.RoundTripper
		srv    *digestServer
		n      int
		writes atomic.Int64
	}
	peers := map[string]*peer{}
	defer func() {
		for _, p := range peers {
			p.srv.Close()
		}
	}()
	for name, build := range build {
		p := &peer{srv: serve(name)}
		peers[name] = p
		p.rt = build(&http.Transport{MaxIdleConnsPerHost: 4, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return writesCounted{c, &p.writes}, nil
		}})
		if least, ok := p.rt.(*boundDigest); ok {
			if err := least.learn(p.srv.URL); err != nil {
				return nil, err
			}
		}
	}
	send := func(p *peer) error {
		p.n++
		req, err := request(p.srv.URL + "/v1/things?limit=10")
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := p.rt.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != 200 {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	results := map[string]*loopbackResult{}
	samples := map[string][]float64{}
	for name, p := range inOrder(peers) {
		results[name] = &loopbackResult{name: name}
		for range 5 {
			if err := send(p); err != nil && results[name].wrong == "" {
				results[name].wrong = err.Error()
			}
		}
		p.srv.hits, p.n = 0, 0
		p.writes.Store(0)
	}
	e.rounds *= 10 // as what the scheduler makes of it varies
	for range e.rounds {
		for name, p := range peers { // in an order that changes
			const n = 10
			start := time.Now()
			for range n {
				if err := send(p); err != nil && results[name].wrong == "" {
					results[name].wrong = err.Error()
				}
			}
			samples[name] = append(samples[name], float64(time.Since(start))/n)
		}
	}
	var all []loopbackResult
	for name, p := range inOrder(peers) {
		r := results[name]
		ratios := make([]float64, e.rounds)
		for i := range ratios {
			ratios[i] = samples[name][i] / samples[noAuth][i]
		}
		r.ns, r.ratio = spreadOf(samples[name]), spreadOf(ratios)
		r.hits = float64(p.srv.hits) / float64(p.n)
		r.conns = p.srv.meter.conns.Load()
		r.writes = float64(p.writes.Load()) / float64(p.n)
		all = append(all, *r)
	}
	return all, nil
}
