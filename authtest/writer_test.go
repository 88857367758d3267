package authtest

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// A handler finds in its ResponseWriter what the server's own has, and what it sends is recorded before it arrives.
func TestHandlersMayFlush(t *testing.T) {
	for kind, start := range map[string]func(...Guard) *Server{"plain": NewServer, "TLS": NewTLSServer, "HTTP2": NewHTTP2Server, "pipe": NewPipeServer} {
		for name, flush := range map[string]func(http.ResponseWriter){
			"Flusher":            func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
			"ResponseController": func(w http.ResponseWriter) { require.NoError(t, http.NewResponseController(w).Flush()) },
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				for _, guard := range []Guard{newBasic(), &Digest{QOP: "auth-int", Username: "Mufasa", Password: "Circle of Life", Rspauth: RspauthMissing}} {
					srv := start(guard)
					defer srv.Close()
					seen := make(chan struct{})
					srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Content-Type", "text/event-stream")
						flush(w)
						<-seen
						io.WriteString(w, "data: x\n\n")
					}))
					header := aladdin
					if _, ok := guard.(*Digest); ok {
						c := &digestClient{user: "Mufasa", password: "Circle of Life"}
						c.answer(send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
						header = auth(c.authorization("GET", "/"))
						srv.Reset()
					}
					req, err := http.NewRequest("GET", srv.URL, nil)
					require.NoError(t, err)
					req.Header = header.Clone()
					resp, err := srv.Client().Do(req)
					require.NoError(t, err)
					defer resp.Body.Close()
					r := srv.Requests()[0]
					require.Equal(t, "GET / 200 accepted", r.String())
					require.Equal(t, "text/event-stream", r.ResponseHeader.Get("Content-Type"))
					close(seen)
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.Equal(t, "data: x\n\n", string(body))
				}
			})
		}
	}
}

func TestHandlersMayHijack(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	for path, hijack := range map[string]func(http.ResponseWriter) (io.WriteCloser, error){
		"/type": func(w http.ResponseWriter) (io.WriteCloser, error) {
			conn, _, err := w.(http.Hijacker).Hijack()
			return conn, err
		},
		"/controller": func(w http.ResponseWriter) (io.WriteCloser, error) {
			conn, _, err := http.NewResponseController(w).Hijack()
			return conn, err
		},
	} {
		srv.Reset()
		srv.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := hijack(w)
			require.NoError(t, err)
			io.WriteString(conn, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
			conn.Close()
		}))
		require.Equal(t, 299, send(t, srv, "GET", path, "", nil).StatusCode)
		require.Zero(t, srv.Requests()[0].Status)
	}
}

// What the server's own ResponseWriter has not, the handler's has not either.
func TestHandlersSeeNoMoreThanThereIs(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	var flushes, hijacks bool
	srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, flushes = w.(http.Flusher)
		_, hijacks = w.(http.Hijacker)
	}))
	for _, c := range []struct {
		w                http.ResponseWriter
		flushes, hijacks bool
	}{
		{struct{ http.ResponseWriter }{httptest.NewRecorder()}, false, false},
		{httptest.NewRecorder(), true, false},
		{struct {
			http.ResponseWriter
			http.Hijacker
		}{httptest.NewRecorder(), noHijacker{}}, false, true},
		{wrapped{httptest.NewRecorder()}, true, false},
	} {
		srv.ServeHTTP(c.w, httptest.NewRequest("GET", "/", nil))
		require.Equal(t, c.flushes, flushes, "%T", c.w)
		require.Equal(t, c.hijacks, hijacks, "%T", c.w)
	}
}

type noHijacker struct{ http.Hijacker }

type wrapped struct{ inner http.ResponseWriter }

func (w wrapped) Header() http.Header         { return w.inner.Header() }
func (w wrapped) Write(p []byte) (int, error) { return w.inner.Write(p) }
func (w wrapped) WriteHeader(status int)      { w.inner.WriteHeader(status) }
func (w wrapped) Unwrap() http.ResponseWriter { return w.inner }

// A handler that writes nothing answers 200, and the record says so.
func TestSilentHandlerIsRecorded(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-A", "b") }))
	_, r := dial(t, srv, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "GET / 200 accepted: not protected", srv.Requests()[0].String())
	require.Equal(t, "b", srv.Requests()[0].ResponseHeader.Get("X-A"))
}
