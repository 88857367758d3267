package servers

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// An Exchange is a request that reached a server, and the response to it.
type Exchange struct {
	Method, Path string
	Scheme       string            // the auth-scheme of its Authorization, or ""
	Params       map[string]string // that field's parameters, if it is Digest
	Body         int64             // bytes of the request's body that were read
	Status       int               // 0 as long as there is no response
	Stale        bool              // the response is a challenge that says stale=true
}

// A Recorder stands before a server, passes every request on, and remembers it.
type Recorder struct {
	URL string

	// Hold, if not nil, is called with each request before it is passed on.
	Hold func(Exchange)

	mu        sync.Mutex
	exchanges []*Exchange // guarded by mu, as is what it points to
}

// Record starts a Recorder before the server at target.
func Record(t testing.TB, target string) *Recorder {
	t.Helper()
	to, err := neturl.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorder{}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, ExpectContinueTimeout: 5 * time.Second, DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			e := resp.Request.Context().Value(exchangeKey{}).(*Exchange)
			r.mu.Lock()
			defer r.mu.Unlock()
			e.Status = resp.StatusCode
			e.Stale = stale.MatchString(strings.Join(resp.Header.Values("WWW-Authenticate"), ","))
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		e := r.arrived(req)
		if r.Hold != nil {
			r.Hold(*e)
		}
		if req.Body != http.NoBody { // which says that there is no body, unless it is hidden
			req.Body = countingBody{req.Body, r, e}
		}
		proxy.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), exchangeKey{}, e)))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(transport.CloseIdleConnections)
	r.URL = server.URL
	return r
}

type exchangeKey struct{}

var (
	stale = regexp.MustCompile(`(?i)\bstale="?true`)
	param = regexp.MustCompile(`([a-z]+)=(?:"([^"]*)"|([^\s,]+))`)
)

func (r *Recorder) arrived(req *http.Request) *Exchange {
	scheme, rest, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	e := &Exchange{Method: req.Method, Path: req.URL.Path, Scheme: scheme}
	if scheme == "Digest" {
		e.Params = map[string]string{}
		for _, m := range param.FindAllStringSubmatch(rest, -1) {
			e.Params[m[1]] = m[2] + m[3]
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanges = append(r.exchanges, e)
	return e
}

// Take returns what has been recorded since it was last called, in the order in which the requests arrived.
func (r *Recorder) Take() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := make([]Exchange, len(r.exchanges))
	for i, e := range r.exchanges {
		taken[i] = *e
	}
	r.exchanges = nil
	return taken
}

// countingBody counts what is read of a request's body.
type countingBody struct {
	io.ReadCloser
	r *Recorder
	e *Exchange
}

func (b countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.e.Body += int64(n)
	return n, err
}
