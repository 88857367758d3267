package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// What a server sends may cost us time that is linear in its bytes, and memory that is bounded by a constant.
//
// Each case is run at two sizes. What is allocated may grow with the size by some bytes for each byte sent, and what is kept
// afterwards, the explanation and all that is remembered, not at all. The larger size is such that whatever took quadratic
// time would not come to an end: that would be some 10¹² steps. (What allocates nothing can be linear in no other way
// that a test could tell on a busy machine.) Those are the sizes where all is tried; see internal/thorough.
const (
	smallCost = 1 << 18
	largeCost = 1 << 20
)

// A costCase is something that a server sends, in some n bytes.
type costCase struct {
	name    string
	send    func(n int) *costServer
	perByte float64 // of what is allocated
}

// keptAtMost is what may be kept of three requests: an explanation has 128 KiB of the server's text at most, and what it
// takes to tell its parts.
const keptAtMost = 3 * 256 << 10

// allocatedAtMost is what may be allocated for three requests besides, however little is sent.
const allocatedAtMost = 4 << 20

// A costServer is a Base. What it sends is cleared before it is measured what is kept.
type costServer struct {
	refusal  http.Header // of a 401, if there are no credentials, or always if it refuses for ever
	header   http.Header // of any other response
	status   int         // of that; 0: 200
	forEver  bool
	body     func() io.ReadCloser
	location string // of the request that is sent, and not by the server
	read     atomic.Int64
}

func (s *costServer) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: max(s.status, 200), Header: s.header, Body: http.NoBody, Request: req, ContentLength: -1}
	if s.refusal != nil && (s.forEver || !hasCredentials(req)) {
		resp.StatusCode, resp.Header = 401, s.refusal
	}
	if s.body != nil {
		resp.Body = s.body()
	}
	return resp, nil
}

const digestChallengeText = `Digest realm="x", nonce="n", qop="auth"`

func challengeLines(lines ...string) *costServer {
	return &costServer{refusal: http.Header{"Www-Authenticate": lines}, forEver: true}
}

func informs(name string, values ...string) *costServer {
	return &costServer{refusal: http.Header{"Www-Authenticate": {digestChallengeText}}, header: http.Header{name: values}}
}

// fill returns some n bytes of a text, between others.
func fill(n int, before, text, after string) string {
	return before + strings.Repeat(text, n/len(text)) + after
}

func oneLine(name, before, text, after string) costCase {
	return costCase{name: name, send: func(n int) *costServer { return challengeLines(fill(n, before, text, after)) }, perByte: 0.1}
}

var costCases = []costCase{
	oneLine("schemes", "", "a,", ""),
	oneLine("known schemes", "", "Digest,", ""),
	oneLine("parameters", "Digest ", "a=b,", ""),
	oneLine("a parameter again and again", "Digest ", `realm="x",`, ""),
	oneLine("challenges", "", `Digest realm="x", nonce="n", qop="auth", `, ""),
	oneLine("unsupported challenges", "", `Digest realm="x", nonce="n", algorithm=no, `, ""),
	oneLine("a scheme", "", "a", ""),
	oneLine("a realm", `Digest nonce="n", qop="auth", realm="`, "x", `"`),
	oneLine("a realm of Basic", `Basic realm="`, "x", `"`),
	oneLine("a nonce", `Digest realm="x", qop="auth", nonce="`, "x", `"`),
	oneLine("an opaque", `Digest realm="x", nonce="n", qop="auth", opaque="`, "x", `"`),
	oneLine("a domain", `Digest realm="x", nonce="n", qop="auth", domain="`, "/ ", `"`),
	oneLine("a short domain", `Digest realm="x", nonce="n", qop="auth", domain="`+strings.Repeat("/ ", 4000)+`", comment="`, "x", `"`),
	oneLine("a qop", `Digest realm="x", nonce="n", qop="`, "x,", `"`),
	oneLine("an algorithm", `Digest realm="x", nonce="n", qop="auth", algorithm="`, "x", `"`),
	oneLine("a scope", `Bearer error="insufficient_scope", scope="`, "a ", `"`),
	oneLine("an error_description", `Bearer error="invalid_token", error_description="`, "x", `"`),
	oneLine("claims", `Bearer error="insufficient_claims", claims="`, "AAAA", `"`),
	oneLine("acr_values", `Bearer error="insufficient_user_authentication", acr_values="`, "a ", `"`),
	oneLine("a max_age", `Bearer error="insufficient_user_authentication", max_age="`, "9", `"`),
	oneLine("a token68", "Digest ", "A", "="),
	oneLine("quotes", "Digest realm=", `"`, ""),
	oneLine("quotes and equals signs", "Digest realm=", `"=`, ""),
	oneLine("backslashes", `Digest nonce="n", realm="`, `\`, `"`),
	oneLine("unclosed quotes", "", `a="b,`, ""),
	oneLine("commas", "", ",", ""),
	oneLine("spaces", "Digest", " ", ""),
	oneLine("equals signs", "Digest ", "=", ""),
	oneLine("control characters", `Digest realm="`, "\x01", `"`),
	oneLine("bytes outside ASCII", `Digest nonce="n", realm="`, "\xff", `"`),
	{"lines", func(n int) *costServer {
		return challengeLines(slices.Repeat([]string{digestChallengeText}, n/len(digestChallengeText))...)
	}, 4}, // a copy of the slice for the Schemes
	{"short lines", func(n int) *costServer { return challengeLines(slices.Repeat([]string{"a"}, n)...) }, 64},
	{"short lines after challenges", func(n int) *costServer {
		return challengeLines(append(slices.Repeat([]string{`Digest realm="x", nonce="n", algorithm=no`}, maxChallenges-1), slices.Repeat([]string{"a"}, n)...)...)
	}, 64},
	{"empty lines", func(n int) *costServer { return challengeLines(slices.Repeat([]string{""}, n)...) }, 64},

	{"a nextnonce", func(n int) *costServer { return informs("Authentication-Info", fill(n, `nextnonce="`, "n", `"`)) }, 6},
	{"an escaped nextnonce", func(n int) *costServer { return informs("Authentication-Info", fill(n, `nextnonce="`, `\n`, `"`)) }, 6},
	{"an rspauth", func(n int) *costServer { return informs("Authentication-Info", fill(n, `rspauth="`, `\n`, `"`)) }, 6},
	{"a cnonce", func(n int) *costServer { return informs("Authentication-Info", fill(n, `cnonce="`, `\n`, `"`)) }, 6},
	{"cnonces", func(n int) *costServer { return informs("Authentication-Info", fill(n, "", `cnonce="",`, "")) }, 6},
	{"parameters of Authentication-Info", func(n int) *costServer { return informs("Authentication-Info", fill(n, "", "a=b,", "")) }, 6},
	{"lines of Authentication-Info", func(n int) *costServer {
		return informs("Authentication-Info", slices.Repeat([]string{`nextnonce="n"`}, n/13)...)
	}, 4},
	{"unclosed quotes of Authentication-Info", func(n int) *costServer { return informs("Authentication-Info", fill(n, "", `a="b,`, "")) }, 6},

	{"a realm that is logged", func(n int) *costServer {
		s := informs("Authentication-Info", `rspauth="wrong"`)
		s.refusal.Set("Www-Authenticate", fill(7<<10, `Digest nonce="n", qop="auth", realm="`, "\xff", `"`))
		return s
	}, 1},

	{"cookies", func(n int) *costServer {
		s := challengeLines(digestChallengeText)
		for i := range n / 10 {
			s.refusal.Add("Set-Cookie", fmt.Sprintf("%d=b", 1e6+i))
		}
		return s
	}, 32},
	{"a cookie", func(n int) *costServer {
		s := challengeLines(digestChallengeText)
		s.refusal.Set("Set-Cookie", fill(n, "a=", "b", ""))
		return s
	}, 4},

	{"a path", func(n int) *costServer {
		s := challengeLines(`Digest realm="x", nonce="n", qop="auth", domain="/a /b"`)
		s.location = "https://api.example.com" + strings.Repeat("/", n)
		return s
	}, 16},
	{"a path that is accepted", func(n int) *costServer {
		s := informs("X")
		s.location = "https://api.example.com" + strings.Repeat("/a", n/2)
		return s
	}, 16},
	{"a path beside its domain", func(n int) *costServer {
		s := informs("X")
		s.refusal.Set("Www-Authenticate", digestChallengeText+`, domain="/elsewhere"`)
		s.location = "https://api.example.com" + strings.Repeat("/a", n/2)
		return s
	}, 16},
	{"a path of dots", func(n int) *costServer {
		s := informs("X")
		s.location = "https://api.example.com" + strings.Repeat("/.", n/2)
		return s
	}, 16},
	{"a query", func(n int) *costServer {
		s := informs("X")
		s.location = "https://api.example.com/?" + strings.Repeat("%2F", n/3)
		return s
	}, 16},
	{"a host", func(n int) *costServer {
		s := informs("X")
		s.location = "https://" + strings.Repeat("A", n) + ".test/"
		return s
	}, 64},

	{"a host that refuses", func(n int) *costServer {
		s := challengeLines(digestChallengeText)
		s.location = "https://" + strings.Repeat("A", n) + ".test/"
		return s
	}, 64},

	{"the body of a refusal", func(n int) *costServer {
		s := informs("X")
		s.body = func() io.ReadCloser {
			return io.NopCloser(io.LimitReader(countingReader{&s.read}, int64(n)))
		}
		return s
	}, 0.1},
}

// countingReader reads zeros, and counts them.
type countingReader struct{ n *atomic.Int64 }

func (r countingReader) Read(p []byte) (int, error) {
	r.n.Add(int64(len(p)))
	return len(p), nil
}

// A countingWriter counts what is written.
type countingWriter int

func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}

// noHeap is in place of heap, which takes its time, if nobody wants to know what is kept.
func noHeap() uint64 { return 0 }

// cost is what three requests cost.
type cost struct {
	allocated uint64 // bytes
	kept      int64  // bytes
	asked     int    // calls of CredentialsFunc
	logged    int    // bytes
	read      int64  // of bodies
}

func measureCost(t *testing.T, c costCase, n int, heap func() uint64) (got cost) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	var logged countingWriter
	ask := func(context.Context, CredentialsRequest) (string, string, error) {
		got.asked++
		return "u", "p", nil
	}
	source := &TokenSource{Initial: old(), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, errors.New("down")
	}}
	log := LogEvents(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	transport := &Transport{Jar: jar, Schemes: []Scheme{&Digest{Credentials: ask}, &Bearer{Source: source, NotAhead: true, StepUp: true}, &Basic{Credentials: ask}},
		OnEvent: func(ctx context.Context, e Event) {
			log(ctx, e)
			require.LessOrEqual(t, len(e.Realm), 100)
			require.LessOrEqual(t, len(e.Scheme), 4*102)
			if e.Err != nil && e.Kind == EventUnverified {
				require.LessOrEqual(t, len(e.Err.Error()), 2<<10)
			}
		},
		Base: challengeLines(digestChallengeText)}
	roundTrip(t, transport, "https://warm.example.com/") // what is made once
	for i := range 64 {                                  // so many scopes that a look at one takes a hash
		transport.auth.spaces.keep(spacesKey{"", origin{"https", "api.example.com", "443"}}, &url.URL{Scheme: "https", Host: "api.example.com", Path: fmt.Sprintf("/known/%d/x", i)},
			leaseOf(word{text: "x"}, 2, "0"), 0)
	}
	for i := range maxSpaces - 1 {
		transport.auth.spaces.keep(spacesKey{"", origin{"https", "api.example.com", "443"}}, &url.URL{Scheme: "https", Host: "api.example.com", Path: "/known/x"},
			leaseOf(word{text: "x"}, 2, fmt.Sprint(i)), 0)
	}
	got, logged = cost{}, 0

	before := heap()
	server := c.send(n)
	transport.Base = server
	transport.returning = nil
	target := "https://api.example.com/a/b"
	if server.location != "" {
		target = server.location
	}
	reqs := []*http.Request{httptest.NewRequest("GET", target, nil), httptest.NewRequest("GET", target, nil), httptest.NewRequest("GET", target, nil)}
	var m1, m2 runtime.MemStats
	runtime.ReadMemStats(&m1)
	var explained []error
	for _, req := range reqs {
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			err = Explain(resp)
		}
		if err != nil {
			require.Less(t, len(err.Error()), 4<<10, "the text of an error")
		}
		explained = append(explained, err)
	}
	runtime.ReadMemStats(&m2)
	got.allocated, got.logged, got.read = m2.TotalAlloc-m1.TotalAlloc, int(logged), server.read.Load()
	clear(reqs)
	target, server.location, server.refusal, server.header, server.body = "", "", nil, nil, nil
	transport.Base = nil
	got.kept = int64(heap()) - int64(before)
	runtime.KeepAlive(transport)
	runtime.KeepAlive(explained)
	return got
}

func TestWhatAServerSendsCostsWhatItIsWorth(t *testing.T) { // not parallel: it measures the heap
	for i, c := range costCases {
		if i%thorough.Or(1, 4) > 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			from, to := thorough.Or(smallCost, 160<<10), thorough.Or(largeCost, 416<<10)
			small, large := measureCost(t, c, from, noHeap), measureCost(t, c, to, heap)
			perByte := (float64(large.allocated) - float64(small.allocated)) / float64(to-from)
			t.Logf("%.2f bytes allocated for each byte, %d kept, %d asked, %d logged", perByte, large.kept, large.asked, large.logged)
			require.LessOrEqual(t, perByte, c.perByte)
			require.LessOrEqual(t, float64(large.allocated), float64(to)*c.perByte+allocatedAtMost)
			require.Less(t, large.kept, int64(keptAtMost))
			require.LessOrEqual(t, large.asked, 3*2*maxChallenges)
			require.Less(t, large.logged, 3*16<<10)
			require.LessOrEqual(t, large.read, int64(3*(drainLimit+64<<10)))
		})
	}
}

func TestDigestDomainIsBounded(t *testing.T) {
	u := httptest.NewRequest("GET", "https://api.example.com/x", nil).URL
	space := readDigestDomain(strings.Repeat("/ ", maxDigestText/2), u)
	require.Len(t, space.prefixes, maxDomain)
	require.True(t, space.covers(u))
}

// What is remembered of one origin does not grow with the requests that are made one after the other, whatever it asks for.
func TestSequentialRequestsKeepNoMoreThanOneSession(t *testing.T) { // not parallel: it measures the heap
	exclusive := &puppet{name: "Word", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		return exclusiveWord{word{text: "Word"}}, nil
	}}
	for name, c := range map[string]struct {
		scheme    Scheme
		challenge string
	}{
		"a domain elsewhere":           {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="%d", qop="auth", domain="/elsewhere"`},
		"a long domain elsewhere":      {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="%d", qop="auth", domain="` + strings.Repeat("/elsewhere ", 500) + `"`},
		"a domain of another origin":   {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="%d", qop="auth", domain="https://other.test/"`},
		"another realm each time":      {&Digest{Username: "u", Password: "p"}, `Digest realm="%d", nonce="n", qop="auth", domain="/elsewhere"`},
		"no word of what it covers":    {exclusive, "Word"},
		"a domain elsewhere, and back": {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="%d", qop="auth", domain="/elsewhere /0"`},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			transport := &Transport{Schemes: []Scheme{c.scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				n++
				resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}
				if !hasCredentials(req) {
					challenge := c.challenge
					if strings.Contains(challenge, "%") {
						challenge = fmt.Sprintf(challenge, n)
					}
					resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{challenge}
				}
				return resp, nil
			})}
			var before uint64
			for i := range thorough.Or(2000, 1000) {
				if i == 100 {
					before = heap()
				}
				require.Equal(t, 200, roundTrip(t, transport, fmt.Sprintf("https://api.example.com/%d/x", i)).StatusCode)
			}
			require.Less(t, int64(heap())-int64(before), int64(1<<20)) // scopes, and what is known of nonces
			for _, known := range transport.auth.spaces.known {
				for _, sp := range known.spaces {
					require.LessOrEqual(t, len(sp.idle), 1)
				}
			}
			runtime.KeepAlive(transport)
		})
	}
}

// Of what a token endpoint answers, 1 MiB is read, and no more is kept than that is worth.
func TestTokenAnswerCostsWhatItIsWorth(t *testing.T) { // not parallel: it measures the heap
	scopes := func(n int) string {
		var s strings.Builder
		for i := range n / 8 {
			fmt.Fprintf(&s, "s%06x ", i)
		}
		return s.String()
	}
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   func(n int) string
	}{
		"an access token":    {200, nil, func(n int) string { return fill(n, `{"access_token":"`, "a", `"}`) }},
		"a refresh token":    {200, nil, func(n int) string { return fill(n, `{"access_token":"a","refresh_token":"`, "a", `"}`) }},
		"scopes":             {200, nil, func(n int) string { return `{"access_token":"a","scope":"` + scopes(n) + `"}` }},
		"short scopes":       {200, nil, func(n int) string { return fill(n, `{"access_token":"a","scope":"`, "a ", `"}`) }},
		"other members":      {200, nil, func(n int) string { return fill(n, `{"access_token":"a"`, `,"x":[]`, `}`) }},
		"depth":              {200, nil, func(n int) string { return fill(n, `{"access_token":"a","x":`, `[`, "") }},
		"a lifetime":         {200, nil, func(n int) string { return fill(n, `{"access_token":"a","expires_in":`, `9`, "}") }},
		"an error":           {400, nil, func(n int) string { return fill(n, `{"error":"`, `x`, `"}`) }},
		"a description":      {400, nil, func(n int) string { return fill(n, `{"error":"invalid_grant","error_description":"`, `x`, `"}`) }},
		"a long Retry-After": {503, http.Header{"Retry-After": {strings.Repeat("9", largeCost)}}, func(int) string { return "" }},
		"nothing":            {200, nil, func(n int) string { return strings.Repeat(" ", n) }},
	} {
		if thorough.Or(false, name == "a refresh token" || name == "short scopes" || name == "a lifetime" || name == "a description") {
			continue // they are much as others
		}
		t.Run(name, func(t *testing.T) {
			measure := func(n int, heap func() uint64) (allocated uint64, kept int64, read int64) {
				before := heap()
				body := c.body(n)
				client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					src := strings.NewReader(body)
					return &http.Response{StatusCode: c.status, Request: req, Header: c.header, Body: io.NopCloser(readCounter{src, &read})}, nil
				})}
				source := &TokenSource{Initial: &oauth2.Token{RefreshToken: "refresh-0"}, HTTPClient: client,
					Fetch: (&TokenEndpoint{URL: "https://issuer.example.com/token", ClientID: "c"}).Refresh()}
				var m1, m2 runtime.MemStats
				runtime.ReadMemStats(&m1)
				_, err := source.Token()
				runtime.ReadMemStats(&m2)
				if err != nil {
					require.Less(t, len(err.Error()), 1<<10)
				}
				body, client.Transport = "", nil
				kept = int64(heap()) - int64(before)
				runtime.KeepAlive(source)
				return m2.TotalAlloc - m1.TotalAlloc, kept, read
			}
			small, kept, _ := measure(900<<10, heap)
			large, keptLarge, read := measure(largeCost, thorough.Or(heap, noHeap)) // only a part of the answer is read
			t.Logf("%d and %d bytes allocated, %d kept", small, large, kept)
			require.LessOrEqual(t, read, int64(maxTokenAnswer+64<<10))
			require.Less(t, max(small, large), uint64(64*maxTokenAnswer))
			require.Less(t, max(kept, keptLarge), int64(24*maxTokenAnswer))
		})
	}
}

type readCounter struct {
	io.Reader
	n *int64
}

func (r readCounter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	*r.n += int64(n)
	return n, err
}

// An exchange is allocated for each request, and fits a size class of the allocator to the byte.
func TestExchangeFitsItsSizeClass(t *testing.T) {
	if strconv.IntSize < 64 {
		t.Skip("words are smaller here")
	}
	require.LessOrEqual(t, unsafe.Sizeof(exchange{}), uintptr(448))
}
