package ntlm

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// A heldBody keeps the body of a request from being closed by a try that fails before anything was read of it.
type heldBody struct {
	body    io.ReadCloser // nil: none
	getBody func() (io.ReadCloser, error)
	current *lentBody // of the latest try
}

// holdBody returns what has the body of a request. It must be ended.
func holdBody(req *http.Request) *heldBody {
	h := &heldBody{getBody: req.GetBody}
	if req.Body != nil && req.Body != http.NoBody {
		h.body = req.Body
	} else if req.Body != nil {
		req.Body.Close()
	}
	return h
}

// take returns the body for one try.
func (h *heldBody) take() io.ReadCloser {
	if h.body == nil {
		return nil
	}
	h.current = &lentBody{body: h.body}
	return h.current
}

// renew reports whether there can be another try, and ends the last.
func (h *heldBody) renew() bool {
	if h.body == nil || h.current == nil || h.current.takeBack() {
		return true
	}
	if h.getBody == nil {
		return false
	}
	again, err := h.getBody()
	if err != nil {
		return false
	}
	h.body.Close()
	h.body, h.current = again, nil
	return true
}

// end lets the last try close the body, which it may still be sending. If it has failed, the body is closed now.
func (h *heldBody) end(failed bool) {
	switch {
	case h.body == nil:
	case h.current == nil:
		h.body.Close()
	default:
		h.current.keep(failed)
	}
}

// A lentBody is the body in the hands of one try. Until it is kept, it does not pass on that it was closed.
type lentBody struct {
	mu       sync.Mutex // guards what follows; not held in Read
	body     io.ReadCloser
	isRead   bool // something was asked for
	isClosed bool
	isKept   bool // what is closed now is closed
}

var errBodyEnded = errors.New("ntlm: the request's body was closed")

func (b *lentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	body := b.body
	b.isRead = true
	b.mu.Unlock()
	if body == nil {
		return 0, errBodyEnded
	}
	return body.Read(p)
}

func (b *lentBody) Close() error {
	b.mu.Lock()
	isFirst, isKept := !b.isClosed, b.isKept
	b.isClosed = true
	b.mu.Unlock()
	if isFirst && isKept {
		return b.body.Close()
	}
	return nil
}

// takeBack reports whether nothing was read. Then nothing can be read any more.
func (b *lentBody) takeBack() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isRead {
		return false
	}
	b.body = nil
	b.isKept = false
	return true
}

// keep has the body closed when it is closed, which it is now if the try has failed.
func (b *lentBody) keep(failed bool) {
	b.mu.Lock()
	isClosed := b.isClosed || failed
	b.isClosed = isClosed
	b.isKept = true
	b.mu.Unlock()
	if isClosed {
		b.body.Close()
	}
}
