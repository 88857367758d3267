package schemetest

import (
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A shown is what a request was when a Scheme got to see it.
type shown struct {
	req    *http.Request
	was    http.Request
	url    url.URL
	header http.Header
	body   *watchedBody // in place of the request's own; nil if it has none
}

// show notes what req is.
func show(req *http.Request) *shown {
	return &shown{req: req, was: *req, url: *req.URL, header: req.Header.Clone()}
}

// showUnsent notes what req is, which nobody is sending yet. Until hide is called, its body is one that notes whether it
// is used; what is read of it is text, and the request's own stays whole.
func showUnsent(req *http.Request, text string) *shown {
	s := show(req)
	if req.Body != nil && req.Body != http.NoBody {
		s.body = newWatchedBody(text)
		req.Body = s.body
	}
	return s
}

// hide ends what show began: it returns what has become different, in words, and makes it what it was, so that nothing
// follows from it. It returns the headers that were added, too, which is no change if they may be.
func (s *shown) hide(mayAdd bool) (changed []string, added http.Header) {
	req := s.req
	if req.URL != s.was.URL || *s.was.URL != s.url {
		changed = append(changed, "its URL")
		*s.was.URL = s.url // which the caller has, too
	}
	if req.Method != s.was.Method || req.Host != s.was.Host || req.ContentLength != s.was.ContentLength {
		changed = append(changed, "its method, Host or ContentLength")
	}
	added = make(http.Header)
	for name, values := range req.Header {
		if _, ok := s.header[name]; !ok {
			added[name] = values
		}
	}
	if len(added) > 0 && !mayAdd {
		changed = append(changed, headersNamed(added))
		added = nil
	}
	mine := make(http.Header)
	for name, values := range s.header {
		if !slices.Equal(req.Header[name], values) {
			mine[name] = values
		}
	}
	if len(mine) > 0 {
		changed = append(changed, headersNamed(mine))
	}
	if len(changed) > 0 { // or else others may be reading it
		header := s.was.Header // which the caller has, too
		clear(header)
		maps.Copy(header, s.header)
		maps.Copy(header, added)
		*req = s.was
	}
	if s.body != nil {
		req.Body = s.was.Body
	}
	return changed, added
}

// useOf says what was done to the body that show put in place, or "".
func (s *shown) useOf() string {
	switch {
	case s.body == nil:
		return ""
	case s.req.Body != s.body:
		return "replaced"
	}
	return s.body.use
}

func headersNamed(h http.Header) string {
	return "its header " + strings.Join(slices.Sorted(maps.Keys(h)), ", ")
}

// A watchedBody notes what is done to it.
type watchedBody struct {
	io.Reader
	use string // "read" or "closed"; "" if nothing was done
}

func newWatchedBody(text string) *watchedBody {
	return &watchedBody{Reader: strings.NewReader(text)}
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.use = "read"
	return b.Reader.Read(p)
}

func (b *watchedBody) Close() error {
	if b.use == "" {
		b.use = "closed"
	}
	return nil
}

// changedResponse returns what of a response has become different, in words, and makes it what it was.
func changedResponse(resp *http.Response, status int, header http.Header) []string {
	var changed []string
	if resp.StatusCode != status {
		changed = append(changed, "its status")
		resp.StatusCode = status
	}
	if !maps.EqualFunc(resp.Header, header, slices.Equal) {
		changed = append(changed, "its header")
		resp.Header = header
	}
	return changed
}
