package authtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
)

// Replay returns a handler that answers with recorded HTTP/1 responses: the first request with the first, and so
// on. When there are none left, it answers 500. The recording is the responses one after another as they are on the
// wire. One that has neither Content-Length nor chunks reaches to the end, so it must be the last.
//
// The handler is for [Server.Handle], or for any other server.
func Replay(recording []byte) (http.Handler, error) {
	p := &player{}
	for r := bufio.NewReader(bytes.NewReader(recording)); ; {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return p, nil
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, fmt.Errorf("authtest: response %d of the recording: %w", len(p.responses)+1, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, fmt.Errorf("authtest: body of response %d of the recording: %w", len(p.responses)+1, err)
		}
		if resp.StatusCode < 200 { // an interim response, such as 100 Continue
			continue
		}
		// Framing is the business of the server that plays it.
		resp.Header.Del("Content-Length")
		p.responses = append(p.responses, recorded{resp.StatusCode, resp.Header, body})
	}
}

type recorded struct {
	status int
	header http.Header
	body   []byte
}

type player struct {
	mu        sync.Mutex
	responses []recorded // guarded by mu; those to come
}

func (p *player) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	p.mu.Lock()
	if len(p.responses) == 0 {
		p.mu.Unlock()
		http.Error(w, "authtest: the recording has no more responses", http.StatusInternalServerError)
		return
	}
	next := p.responses[0]
	p.responses = p.responses[1:]
	p.mu.Unlock()

	maps.Copy(w.Header(), next.header)
	w.WriteHeader(next.status)
	w.Write(next.body)
}
