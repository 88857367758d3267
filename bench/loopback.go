package main

import (
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

// A loopbackResult is what a peer needs over loopback.
type loopbackResult struct {
	name  string
	wrong string
	hits  float64 // a request
	conns int64
	ns    spread
	ratio spread // to requests that need no credentials
}

// loopbackRow sends requests one after the other to servers on loopback, by turns to one without and one with Digest.
func loopbackRow(e effort, next bool) ([]loopbackResult, error) {
	type peer struct {
		rt  http.RoundTripper
		srv *digestServer
		n   int
	}
	base := func() *http.Transport { return &http.Transport{MaxIdleConnsPerHost: 4} }
	peers := map[string]*peer{}
	add := func(name string, protected bool, build func(base http.RoundTripper) http.RoundTripper) {
		peers[name] = &peer{rt: build(base()), srv: newDigestServer(md5Hashing, protected, next)}
	}
	add(noAuth, false, func(base http.RoundTripper) http.RoundTripper { return base })
	for name := range digestPeers(nil) {
		add(name, true, func(base http.RoundTripper) http.RoundTripper { return digestPeers(base)[name] })
	}
	least := &boundDigest{hashing: md5Hashing, ha1: md5Hashing.of(username, realm, password)}
	add(bound, true, func(base http.RoundTripper) http.RoundTripper { least.base = base; return least })
	if err := least.learn(peers[bound].srv.URL); err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range peers {
			p.srv.Close()
		}
	}()
	send := func(p *peer) error {
		p.n++
		req, err := http.NewRequest("GET", p.srv.URL+"/v1/things?limit=10", nil)
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
		all = append(all, *r)
	}
	return all, nil
}
