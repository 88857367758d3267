package main

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	icholy "github.com/icholy/digest"
	mongodb "github.com/mongodb-forks/digest"
	"resty.dev/v3"
)

const (
	username = "Mufasa"
	password = "Circle of Life"
	realm    = "http-auth@example.org"
	nonce    = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
	opaque   = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
)

// A hashing is an algorithm of Digest.
type hashing struct {
	name string // as in a challenge
	hash func(dst, data []byte) []byte
}

var (
	md5Hashing = hashing{"MD5", func(dst, data []byte) []byte {
		sum := md5.Sum(data)
		return hex.AppendEncode(dst, sum[:])
	}}
	sha256Hashing = hashing{"SHA-256", func(dst, data []byte) []byte {
		sum := sha256.Sum256(data)
		return hex.AppendEncode(dst, sum[:])
	}}
)

func (h hashing) of(parts ...string) string {
	return string(h.hash(nil, []byte(strings.Join(parts, ":"))))
}

func (h hashing) challenge(nonce string) string {
	return `Digest realm="` + realm + `", qop="auth", algorithm=` + h.name + `, nonce="` + nonce + `", opaque="` + opaque + `"`
}

// boundDigest is the least that a RoundTripper has to do that knows the nonce already: copy the request, hash twice, and
// look for the next nonce.
type boundDigest struct {
	base http.RoundTripper
	hashing
	ha1, nonce string
	nc         uint32
}

const boundCnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"

func (b *boundDigest) RoundTrip(req *http.Request) (*http.Response, error) {
	own := new(http.Request)
	*own = *req
	own.Header = req.Header.Clone()
	b.nc++
	var buf [512]byte
	nc := string(strconv.AppendUint(buf[:0], uint64(b.nc)+1<<32, 16)[1:])
	uri := req.URL.RequestURI()
	ha2 := b.hash(nil, append(append(append(buf[:0], req.Method...), ':'), uri...))
	a := append(append(append(append(buf[:0], b.ha1...), ':'), b.nonce...), ':')
	a = append(append(append(append(a, nc...), ':'), boundCnonce+":auth:"...), ha2...)
	response := b.hash(nil, a)
	own.Header.Set("Authorization", `Digest username="`+username+`", realm="`+realm+`", nonce="`+b.nonce+`", uri="`+uri+`", nc=`+nc+
		`, response="`+string(response)+`", cnonce="`+boundCnonce+`", qop=auth, opaque="`+opaque+`", algorithm=`+b.name)
	resp, err := b.base.RoundTrip(own)
	if err == nil {
		if info := resp.Header["Authentication-Info"]; info != nil {
			b.nonce, b.nc = quotedAfter(info[0], "nextnonce="), 0
		}
	}
	return resp, err
}

// learn gets the first nonce of a server.
func (b *boundDigest) learn(url string) error {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	b.nonce, b.nc = quotedAfter(resp.Header.Get("WWW-Authenticate"), "nonce="), 0
	return nil
}

// quotedAfter returns what is quoted after name.
func quotedAfter(s, name string) string {
	_, s, _ = strings.Cut(s, name+`"`)
	s, _, _ = strings.Cut(s, `"`)
	return s
}

// digestPeers are all ways to do Digest over base.
func digestPeers(base http.RoundTripper) map[string]http.RoundTripper {
	m := mongodb.NewTransportWithHTTPRoundTripper(username, password, base)
	return map[string]http.RoundTripper{
		ours:      &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&authretry.Digest{Username: username, Password: password}}},
		"icholy":  &icholy.Transport{Username: username, Password: password, Transport: base},
		"mongodb": m,
		"resty":   resty.NewWithClient(&http.Client{Transport: base}).SetDigestAuth(username, password).Transport(),
	}
}

// checkDigest runs requests against a server that checks each, and reports what is wrong, or needed more than one
// round trip.
func checkDigest(h hashing, build func(base http.RoundTripper) http.RoundTripper) (hits float64, err error) {
	guard := &authtest.Digest{Username: username, Password: password, Realm: realm, Algorithms: []string{h.name}, Opaque: opaque}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	rt := build(srv.Client().Transport)
	const n = 50
	for range n {
		req, err := http.NewRequest("GET", srv.URL+"/v1/things?limit=10", nil)
		if err != nil {
			return 0, err
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return 0, fmt.Errorf("status %d: %s", resp.StatusCode, srv.Requests()[len(srv.Requests())-1].Reason)
		}
		if req.Header.Get("Authorization") != "" {
			return 0, errors.New("modifies the caller's request")
		}
	}
	if wrong := guard.NonceErrors(); len(wrong) > 0 {
		return 0, fmt.Errorf("%d wrong nonce counts", len(wrong))
	}
	return float64(len(srv.Requests())-2) / (n - 1), nil // without the first, which takes two
}

// refusing is a Base that takes no time, and asks requests without credentials for some.
func refusing(challenge string) http.RoundTripper {
	refusal := http.Header{"Www-Authenticate": {challenge}}
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header["Authorization"] != nil {
			return accepted, nil
		}
		return &http.Response{StatusCode: 401, Header: refusal, Body: http.NoBody, Request: req}, nil
	})
}

// digestRow measures what a request with Digest costs in the steady state.
func digestRow(e effort, h hashing) ([]timing, error) {
	peers := digestPeers(refusing(h.challenge(nonce)))
	peers[bound] = &boundDigest{base: atOnce, hashing: h, ha1: h.of(username, realm, password), nonce: nonce}
	var cs []contender
	remarks := map[string]string{}
	for name, rt := range inOrder(peers) {
		req := newRequest()
		c := contender{name: name, op: func() error {
			_, err := rt.RoundTrip(req)
			return err
		}}
		if name != bound {
			c.check = func() error {
				hits, err := checkDigest(h, func(base http.RoundTripper) http.RoundTripper { return digestPeers(base)[name] })
				if hits > 1 {
					remarks[name] = fmt.Sprintf("%.1f server hits a request", hits)
				}
				return err
			}
		}
		cs = append(cs, c)
	}
	timings, err := compare(e, 1, bound, cs...)
	for i := range timings {
		timings[i].remarks = remarks[timings[i].name]
	}
	return timings, err
}

// inOrder iterates over peers: ours, the bound, then the others by name.
func inOrder[V any](peers map[string]V) iter.Seq2[string, V] {
	rank := func(name string) string {
		switch name {
		case ours:
			return "0"
		case bound:
			return "1"
		}
		return "2" + name
	}
	return func(yield func(string, V) bool) {
		for _, name := range slices.SortedFunc(maps.Keys(peers), func(a, b string) int { return strings.Compare(rank(a), rank(b)) }) {
			if !yield(name, peers[name]) {
				return
			}
		}
	}
}

// A digestServer is a small server that checks nonce counts and responses, so that little of the time per request is its
// own. authtest's has everything, but costs more.
type digestServer struct {
	*httptest.Server
	hashing
	ha1       string
	protected bool
	next      bool   // each nonce is good once, and nextnonce brings another
	bearer    string // what it wants instead of Digest; "": Digest
	meter     *meter
	hits      int

	mu    sync.Mutex
	serie int
	uses  map[string]int
}

func newDigestServer(h hashing, protected, next bool) *digestServer {
	s := &digestServer{hashing: h, ha1: h.of(username, realm, password), protected: protected, next: next, uses: map[string]int{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.meter = &meter{Listener: s.Server.Listener}
	s.Server.Listener = s.meter
	s.Start()
	return s
}

func (s *digestServer) newNonce() string {
	s.serie++
	n := strconv.Itoa(s.serie) + "-" + nonce
	s.uses[n] = 0
	return n
}

// ServeHTTP implements http.Handler.
func (s *digestServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits++
	if (s.protected || s.bearer != "") && !s.accepts(w, r) {
		if r.Header.Get("Expect") == "" {
			io.Copy(io.Discard, r.Body)
		}
		w.Header().Set("WWW-Authenticate", s.challenge(s.newNonce()))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	n, _ := io.Copy(io.Discard, r.Body)
	w.Header().Set("X-Body", strconv.FormatInt(n, 10))
	io.WriteString(w, "ok")
}

func (s *digestServer) accepts(w http.ResponseWriter, r *http.Request) bool {
	if s.bearer != "" {
		return r.Header.Get("Authorization") == s.bearer
	}
	params, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Digest ")
	if !ok {
		return false
	}
	get := func(name string) string {
		_, after, _ := strings.Cut(params, name+"=")
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			value, _, _ := strings.Cut(quoted, `"`)
			return value
		}
		value, _, _ := strings.Cut(after, ",")
		return value
	}
	sent, nc := get("nonce"), get(" nc")
	used, known := s.uses[sent]
	response := s.of(s.ha1, sent, nc, get("cnonce"), "auth", s.of(r.Method, r.RequestURI))
	count, err := strconv.ParseUint(nc, 16, 32)
	if !known || get("response") != response || err != nil || len(nc) != 8 || count != uint64(used)+1 {
		return false
	}
	s.uses[sent]++
	if s.next {
		delete(s.uses, sent)
		w.Header().Set("Authentication-Info", `nextnonce="`+s.newNonce()+`"`)
	}
	return true
}
