package authtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Decision is what became of a request.
type Decision int

// The decisions.
const (
	Undecided  Decision = iota // not yet
	Accepted                   // the credentials are good, or none are asked for
	Challenged                 // there were no credentials for any of the guards
	Refused                    // the credentials are not good; Reason says why
	Injected                   // a Fault took the place of the answer; Reason names it
)

var decisionNames = [...]string{"undecided", "accepted", "challenged", "refused", "injected"}

// String returns the decision in lower case, such as "accepted".
func (d Decision) String() string {
	if d < 0 || int(d) >= len(decisionNames) {
		return "unknown"
	}
	return decisionNames[d]
}

// MarshalText returns the same word as String.
func (d Decision) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// A Request is the record of one request that arrived, and of its answer.
//
// Its fields are as they came over the wire, with the credentials. String, GoString, Format (and so every verb of fmt
// but %p, which is a mistake here), Dump and MarshalJSON mask them or leave them out, so that no log, failure message
// or fixture carries one by accident.
type Request struct {
	Time   time.Time
	Method string
	Path   string
	Target string // as on the wire, with the query
	Host   string
	Proto  string // "HTTP/1.1", "HTTP/2.0"
	Conn   string // the client's address, which tells connections apart
	Header http.Header

	BodyLength   int64  // bytes that the server read
	BodySHA256   string // of those bytes, in hex
	BodyComplete bool   // the server read the body to its end: neither left unread nor cut short

	Decision Decision
	Scheme   string // of the Guard that decided, such as "Digest"; empty if none did
	Reason   string // why, in words without any credentials; or the name of the Fault

	Status         int // 0 if no answer was sent, or the connection was hijacked
	ResponseHeader http.Header

	secrets []string // headers that carry credentials, besides the usual ones
}

// String returns a line such as "GET /files 401 refused: the nonce is stale". It holds neither headers nor query.
func (r Request) String() string {
	s := fmt.Sprintf("%s %s %d %s", r.Method, r.Path, r.Status, r.Decision)
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// GoString returns what String returns, so that %#v does not print credentials either.
func (r Request) GoString() string { return r.String() }

// Format writes what String returns, for any verb: package fmt does not ask String for those that are not about text.
func (r Request) Format(f fmt.State, verb rune) { formatRecord(f, verb, r.String()) }

// formatRecord writes s with the flags given: as hex or quoted if the verb says so, else as it is.
func formatRecord(f fmt.State, verb rune, s string) {
	if !strings.ContainsRune("qxX", verb) {
		verb = 's'
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), s)
}

// Dump returns the request and the head of its answer as lines of text, masked as [Request.Masked] does.
func (r Request) Dump() string {
	r = r.Masked()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", r.Method, r.Target, r.Proto)
	dumpHeader(&b, r.Header)
	fmt.Fprintf(&b, "(%d bytes of body)\n", r.BodyLength)
	fmt.Fprintf(&b, "%d %s\n", r.Status, http.StatusText(r.Status))
	dumpHeader(&b, r.ResponseHeader)
	return b.String()
}

func dumpHeader(b *strings.Builder, h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			fmt.Fprintf(b, "%s: %s\n", name, value)
		}
	}
}

// Masked returns a copy whose credentials are replaced by "***": in Authorization, Proxy-Authorization, Cookie,
// Set-Cookie, Authentication-Info, the headers of any [APIKey] and [DPoP] of the server, and the values of the query. The
// auth-scheme stays, and of
// Digest realm, nonce, nextnonce, opaque, uri without the values of its query, algorithm, qop, nc and userhash.
func (r Request) Masked() Request {
	r.Header = maskHeader(r.Header, r.secrets)
	r.ResponseHeader = maskHeader(r.ResponseHeader, r.secrets)
	r.Target = maskQuery(r.Target)
	return r
}

// MarshalJSON writes the request as [Request.Masked] returns it.
func (r Request) MarshalJSON() ([]byte, error) {
	type plain Request
	return json.Marshal(plain(r.Masked()))
}

const mask = "***"

func maskHeader(h http.Header, secrets []string) http.Header {
	h = h.Clone()
	for _, name := range append([]string{"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"}, secrets...) {
		for i, value := range h[name] {
			h[name][i] = maskCredentials(value, strings.HasSuffix(name, "Authorization"))
		}
	}
	for i, value := range h["Authentication-Info"] {
		h["Authentication-Info"][i] = maskParams(value)
	}
	return h
}

// maskCredentials masks a header's value, but for the auth-scheme if it has one.
func maskCredentials(value string, hasScheme bool) string {
	scheme, rest, ok := strings.Cut(value, " ")
	switch {
	case !hasScheme || !ok:
		return mask
	case strings.EqualFold(scheme, "Digest"):
		return scheme + " " + maskParams(rest)
	}
	return scheme + " " + mask
}

// maskParams masks the parameters of Digest that are, or prove, credentials.
func maskParams(text string) string {
	params, err := parseAuthParams(text)
	if err != nil {
		return mask
	}
	var shown []string
	for _, p := range params {
		switch strings.ToLower(p.name) {
		case "realm", "nonce", "nextnonce", "opaque":
			shown = append(shown, p.name+"="+quote(p.value))
		case "uri":
			shown = append(shown, p.name+"="+quote(maskQuery(p.value)))
		case "algorithm", "qop", "nc", "userhash":
			shown = append(shown, p.name+"="+p.value)
		default:
			shown = append(shown, p.name+"="+quote(mask))
		}
	}
	return strings.Join(shown, ", ")
}

// maskQuery keeps the names in a target's query and masks the values.
func maskQuery(target string) string {
	path, query, ok := strings.Cut(target, "?")
	if !ok || query == "" {
		return target
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, _, ok := strings.Cut(pair, "="); ok {
			pairs[i] = name + "=" + mask
		} else {
			pairs[i] = mask
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}

// A TokenRequest is the record of one request to a token endpoint. As with [Request], its fields hold the secrets,
// and String, GoString, Format and MarshalJSON leave them out.
type TokenRequest struct {
	Time      time.Time
	Path      string
	GrantType string   // "refresh_token", "client_credentials"
	ClientID  string   // that the client said, by Basic or in the form
	Scope     string   // that the client asked for
	Decision  Decision // Accepted, Refused or Injected
	Error     string   // the error code of the answer, such as "invalid_grant" (RFC 6749 §5.2)
	Status    int      // 0 if no answer was sent

	Header http.Header `json:"-"`
	Form   url.Values  `json:"-"`
}

// String returns a line such as "refresh_token 400 invalid_grant".
func (r TokenRequest) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %d %s", r.GrantType, r.Status, r.Error))
}

// GoString returns what String returns.
func (r TokenRequest) GoString() string { return r.String() }

// Format writes what String returns, for any verb.
func (r TokenRequest) Format(f fmt.State, verb rune) { formatRecord(f, verb, r.String()) }

// Counts are the numbers of requests since the start or [Server.Reset]. They are exact, however many records are
// kept.
type Counts struct {
	Requests      int // all but those to authorization servers
	AuthRequests  int // to the authorization server of an OAuth, its metadata included, except its token endpoint
	Accepted      int
	Challenged    int
	Refused       int
	Injected      int
	TokenRequests int
}

// Counts returns the numbers of requests so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Requests returns the records of the requests that arrived, in that order, but for those to token endpoints.
// They are copies, at most as many as [Server.Keep] says. What is said of a request is complete when its answer's header
// arrives at the client, except for bodies that a handler set by [Server.Handle] reads later.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
		list[i].Header = r.Header.Clone()
		list[i].ResponseHeader = r.ResponseHeader.Clone()
	}
	return list
}

// TokenRequests returns the records of the requests to token endpoints, in the order of their arrival.
func (s *Server) TokenRequests() []TokenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]TokenRequest, len(s.grants))
	for i, r := range s.grants {
		list[i] = *r
		list[i].Header = r.Header.Clone()
		list[i].Form = url.Values(http.Header(r.Form).Clone())
	}
	return list
}

// Keep sets how many records are kept of each kind, at least 0; older ones are dropped. It is 131072 unless set.
// A benchmark keeps 0.
func (s *Server) Keep(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = max(n, 0)
	s.requests = s.requests[max(0, len(s.requests)-s.keep):]
	s.grants = s.grants[max(0, len(s.grants)-s.keep):]
}

// Reset forgets the records, the counts, and the faults that are left. Nonces and tokens stay good.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.grants, s.faults, s.counts = nil, nil, nil, Counts{}
}

// appendBounded appends v to list, of which only the last limit elements are kept.
func appendBounded[T any](list []T, v T, limit int) []T {
	list = append(list, v)
	if over := len(list) - limit; over > 0 {
		clear(list[:over]) // lets go of what the elements point to
		list = list[over:]
	}
	return list
}
