package schemetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// acceptingAll returns the server that Options.Server is if it is nil.
func acceptingAll(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		word, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(word, name) {
			w.Header().Set("WWW-Authenticate", name+` realm="schemetest"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
}

// refusal returns the headers with which the Server refuses a request without credentials.
func (k *check) refusal() http.Header {
	return refusalOf(k.Server)
}

func refusalOf(server http.Handler) http.Header {
	w := httptest.NewRecorder()
	server.ServeHTTP(w, httptest.NewRequest("GET", "/schemetest/", nil))
	if w.Code != http.StatusUnauthorized {
		return nil
	}
	return w.Header()
}

// foreign is the header of a refusal that asks for another scheme.
var foreign = http.Header{"Www-Authenticate": {`Schemetest-Foreign realm="schemetest"`}}

// insufficient returns the header of a 403 that asks the Scheme for other credentials than those that it has sent (RFC 6750 §3.1).
func insufficient(t *trial) http.Header {
	return http.Header{"Www-Authenticate": {t.name + ` realm="schemetest", error="insufficient_scope", scope="schemetest"`}}
}

// An answer is how a server answers. The call is that of the caller's request; nil for a request of a Carrier's own.
type answer func(t *trial, w http.ResponseWriter, r *http.Request, c *call)

// serve counts a request, and answers it.
func (t *trial) serve(w http.ResponseWriter, r *http.Request) {
	t.checkWire(r)
	t.mu.Lock()
	c, a := t.calls[r.Header.Get(callHeader)], t.answer
	if c != nil {
		c.sends++
	}
	t.mu.Unlock()
	a(t, w, r, c)
}

// judged answers as the Server does.
func judged(t *trial, w http.ResponseWriter, r *http.Request, _ *call) {
	rec := httptest.NewRecorder()
	t.Server.ServeHTTP(rec, r)
	if rec.Code == http.StatusUnauthorized {
		t.mu.Lock()
		t.last = rec.Header().Clone()
		t.told[refusalKey(t.last)] = true
		t.mu.Unlock()
	}
	copyAnswer(w, rec)
}

func copyAnswer(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	copyHeader(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

// refusing returns the answer of a server that refuses whatever comes with a status, and with headers that tell the Scheme nothing, whatever
// they are, if they are silent.
func refusing(status int, header func(*trial) http.Header, silent bool) answer {
	return func(t *trial, w http.ResponseWriter, _ *http.Request, c *call) {
		h := header(t)
		key := refusalKey(h)
		t.mu.Lock()
		if c != nil && c.sends == 1 && c.authorized > 0 {
			c.nothingNew = silent || t.told[key]
		}
		t.told[key] = true
		t.mu.Unlock()
		copyHeader(w.Header(), h)
		w.WriteHeader(status)
		io.WriteString(w, "refused\n")
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		if name != "Content-Length" {
			to[name] = values
		}
	}
}

// refusalKey is the same for refusals with the same headers, but for the date.
func refusalKey(h http.Header) string {
	h = h.Clone()
	delete(h, "Date")
	return fmt.Sprint(map[string][]string(h))
}

func (t *trial) lastRefusal() http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}
