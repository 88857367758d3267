package authtest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Fault is something that goes wrong on the way of a request, for [Server.Inject].
//
// [Refuse], [Reply], [Redirect], [Abort], [Hang], [Delay] and [TokenError] take the place of the answer, or hold it
// back. [RewriteChallenges], [DropChallenge], [JoinChallenges] and [CloseUnread] change the refusals that the guards
// decide on, and leave other answers alone.
type Fault struct {
	name    string
	serve   func(x *exchange)       // takes the place of the answer, if not nil
	passes  bool                    // serve comes to the usual decision in the end
	rewrite func([]string) []string // of the challenges of a refusal
	unread  bool                    // a refusal leaves the body unread
}

type injection struct {
	path string
	left int // negative: for ever
	Fault
}

// Inject lets the next n requests at or below the path meet the fault; all of them, until [Server.Reset], if n is
// negative. A token endpoint meets the faults of its own path only, and none of the paths above it. It panics if
// the path is none.
//
// Faults that take the place of the answer queue up: the first injected is used up first, and each request
// meets one. Of those that change a refusal, all that are left apply at once, and only refusals count.
func (s *Server) Inject(path string, n int, f Fault) {
	mustBePath(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &injection{path, n, f})
}

// meets reports whether the injection is for the request's path.
func (in *injection) meets(x *exchange) bool {
	path := x.r.URL.Path
	if x.issuer != nil {
		return in.path == path || strings.TrimSuffix(in.path, "/") == path
	}
	return under(in.path, path)
}

// nextFault takes the fault that stands in for the answer to a request, or returns nil.
func (s *Server) nextFault(x *exchange) *Fault {
	faults := s.take(x, 1, func(f Fault) bool { return f.serve != nil })
	if len(faults) == 0 {
		return nil
	}
	return &faults[0]
}

// refusalFaults takes the faults that change a refusal.
func (s *Server) refusalFaults(x *exchange) []Fault {
	return s.take(x, -1, func(f Fault) bool { return f.serve == nil })
}

// take uses up one of each of the first n injections for the request that are wanted; of all, if n is negative.
func (s *Server) take(x *exchange, n int, wanted func(Fault) bool) []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []Fault
	for _, in := range s.faults {
		if len(taken) == n {
			break
		}
		if in.left == 0 || !wanted(in.Fault) || !in.meets(x) {
			continue
		}
		in.left = max(in.left-1, -1)
		taken = append(taken, in.Fault)
	}
	s.faults = slices.DeleteFunc(s.faults, func(in *injection) bool { return in.left == 0 })
	return taken
}

// Refuse answers 401 with the challenges of a newcomer, however good the credentials are. Where there is no guard, there
// is no challenge either.
func Refuse() Fault {
	return Fault{name: "refuse", serve: func(x *exchange) { x.refuse(0, x.collect(nil)) }}
}

// Reply answers with the status, headers and body given, after it has read the request's body: a 503, a 429 with
// Retry-After, a login page in HTML, a token response without a token. The header may be nil.
func Reply(status int, header http.Header, body string) Fault {
	return Fault{name: fmt.Sprintf("reply %d", status), serve: func(x *exchange) {
		io.Copy(io.Discard, x.r.Body)
		for name, values := range header {
			x.w.Header()[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
		x.w.WriteHeader(status)
		io.WriteString(x.w, body)
	}}
}

// Redirect answers with the status, such as 302 or 307, and the URL as its Location.
func Redirect(status int, url string) Fault {
	f := Reply(status, http.Header{"Location": {url}}, "")
	f.name = "redirect"
	return f
}

// TokenError answers as a token endpoint does that refuses (RFC 6749 §5.2), with an error code such as
// "invalid_grant": 401 for "invalid_client", with a challenge for Basic if it is a token endpoint; 400 for the others.
func TokenError(code string) Fault {
	return Fault{name: code, serve: func(x *exchange) { x.tokenError(code, "injected") }}
}

// Abort closes the connection, or resets the stream of HTTP/2, before any answer.
func Abort() Fault {
	return Fault{name: "abort", serve: func(*exchange) { panic(http.ErrAbortHandler) }}
}

// Hang reads the request's body and never answers: until the client gives up, or the server is closed.
func Hang() Fault {
	return Fault{name: "hang", serve: func(x *exchange) {
		io.Copy(io.Discard, x.r.Body)
		select {
		case <-x.r.Context().Done():
		case <-x.s.done:
		}
		panic(http.ErrAbortHandler)
	}}
}

// Delay holds the request back for the time, and then handles it as if nothing had happened.
func Delay(d time.Duration) Fault {
	return Fault{name: "delay", passes: true, serve: func(x *exchange) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			x.proceed()
		case <-x.r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-x.s.done:
			panic(http.ErrAbortHandler)
		}
	}}
}

// RewriteChallenges passes the values of a refusal's WWW-Authenticate header through fn, one value a header line:
// garbled challenges, schemes that nobody knows, parameters of one's own. It is called by many goroutines at once.
func RewriteChallenges(fn func(values []string) []string) Fault {
	return Fault{name: "rewrite challenges", rewrite: fn}
}

// DropChallenge refuses without a WWW-Authenticate header, which RFC 9110 §15.5.2 forbids and many servers do.
func DropChallenge() Fault {
	return RewriteChallenges(func([]string) []string { return nil })
}

// JoinChallenges sends the challenges of a refusal in one header line, separated by commas.
func JoinChallenges() Fault {
	return RewriteChallenges(func(values []string) []string {
		if len(values) == 0 {
			return nil
		}
		return []string{strings.Join(values, ", ")}
	})
}

// CloseUnread refuses as soon as the header has arrived and closes the connection without reading the body: a client
// that is still sending may lose the answer. Over HTTP/2 the body of a refused request is not read anyway, and there
// the connection stays. A [Digest] has to read the body of a request with auth-int credentials, also in order to refuse it.
func CloseUnread() Fault {
	return Fault{name: "close unread", unread: true}
}
