package authretry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOriginIsCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"https://api.example.com/x?y#z":     "https://api.example.com",
		"HTTPS://API.Example.COM:443":       "https://api.example.com",
		"http://example.com:80/":            "http://example.com",
		"http://example.com:8080":           "http://example.com:8080",
		"https://example.com:80":            "https://example.com:80",
		"https://u:p@example.com":           "https://example.com",
		"http://[::1]:8080/":                "http://[::1]:8080",
		"http://[0:0::1]/":                  "http://[0:0::1]",
		"https://example.com.":              "https://example.com.",
		"https://api.example.com.evil.test": "https://api.example.com.evil.test",
		"https://GİTHUB.test":               "https://gİthub.test",
		"https://STRAẞE.test":               "https://straẞe.test",
		"https://xn--STRAE-OQA.test":        "https://xn--strae-oqa.test",
		"https://\u212aube.test":            "https://\u212aube.test", // a Kelvin sign
	} {
		u, err := url.Parse(in)
		require.NoError(t, err)
		require.Equal(t, want, originOf(u).String())
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.1.2.3": true, "[::1]": true, "[::ffff:127.0.0.1]": true, "LOCALHOST": true,
		"localhost.example.com": false, "127.0.0.1.example.com": false, "128.0.0.1": false, "[::2]": false, "0.0.0.0": false,
		"127.example.com": false, "10.0.0.1": false, "2130706433": false, "ＬＯＣＡＬＨＯＳＴ": false, "ⓛocalhost": false,
	} {
		u, err := url.Parse("http://" + host + "/")
		require.NoError(t, err)
		require.Equal(t, want, originOf(u).isLoopback(), host)
	}
}

// An element of Origins that is none is an error that says what to write, without what may be a password.
func TestOriginsMustBeOrigins(t *testing.T) {
	const example = `write "https://api.example.com"`
	for bad, want := range map[string]string{
		"":                              example,
		"api.test":                      `write "https://api.test"`,
		"api.test:8443":                 `write "https://api.test:8443"`,
		"API.test:443/v1":               `write "https://api.test"`,
		"//api.test":                    `write "https://api.test"`,
		"[::1]:8443":                    `"https://api.example.com"`,
		"localhost:8080":                `write "https://localhost:8080"`,
		"u:secret@api.test":             example,
		"u:secret":                      example,
		"*.api.test":                    example,
		"api.test?q=secret":             example,
		"ftp://example.com":             example,
		"https://":                      example,
		"https:/api.test":               example,
		"https:api.test":                example,
		"://secret":                     `"https://api.example.com"`,
		"https://api.test/v1":           `write "https://api.test"`,
		"https://api.test:8443/v1":      `write "https://api.test:8443"`,
		"https://u:secret@api.test":     `write "https://api.test"`,
		"https://api.test?q=secret":     `write "https://api.test"`,
		"https://api.test#secret":       `write "https://api.test"`,
		"https://*.api.test":            "no patterns; write each host by its name",
		"https://*":                     "no patterns; write each host by its name",
		"https://api.test\x00secret":    `"https://api.example.com"`,
		"https://u:secret@*.api.test/v": "no patterns; write each host by its name",
	} {
		transport := &Transport{Origins: []string{bad}, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://example.com/", nil))
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, bad)
		require.Equal(t, ReasonMisconfigured, rejection.Reason)
		require.ErrorContains(t, err, "Transport.Origins")
		require.ErrorContains(t, err, want, bad)
		require.NotContains(t, err.Error(), "secret")
	}
}

// hops makes a request that a chain of redirects has led to.
func hops(urls ...string) *http.Request {
	var req *http.Request
	for _, u := range urls {
		next := httptest.NewRequest("GET", u, nil)
		if req != nil {
			next.Response = &http.Response{StatusCode: 302, Request: req}
		}
		req = next
	}
	return req
}

func TestRedirectsThatLeaveTheOriginGetNoCredentials(t *testing.T) {
	for _, c := range []struct {
		chain []string
		left  bool
	}{
		{[]string{"https://a.test/"}, false},
		{[]string{"https://a.test/", "https://a.test/x"}, false},
		{[]string{"https://a.test/", "https://A.test:443/x"}, false},
		{[]string{"http://a.test/", "https://a.test/"}, false},
		{[]string{"http://a.test:80/", "https://a.test:443/", "https://a.test/x"}, false},
		{[]string{"http://a.test:8080/", "https://a.test/"}, true},
		{[]string{"http://a.test/", "https://a.test:8443/"}, true},
		{[]string{"https://a.test/", "http://a.test/"}, true},
		{[]string{"http://a.test/", "https://a.test/", "http://a.test/"}, true},
		{[]string{"https://a.test/", "https://a.test:8443/"}, true},
		{[]string{"https://a.test/", "https://sub.a.test/"}, true},
		{[]string{"https://sub.a.test/", "https://a.test/"}, true},
		{[]string{"https://api.example.com/", "https://api.example.com.evil.test/"}, true},
		{[]string{"https://a.test/", "https://b.test/", "https://a.test/"}, true}, // away and back
		{[]string{"https://b.test/", "https://a.test/", "https://a.test/x"}, true},
	} {
		req := hops(c.chain...)
		require.Equal(t, c.left, hasLeftOrigin(req, byURL), "%v", c.chain)
	}
	endless := hops("https://a.test/")
	endless.Response = &http.Response{Request: endless}
	require.True(t, hasLeftOrigin(endless, byURL))
	orphan := hops("https://a.test/")
	orphan.Response = &http.Response{}
	require.True(t, hasLeftOrigin(orphan, byURL))
}

// Everybody who may see a request of ours, with what a redirect could do to it.
func TestCredentialsStayWithTheirOrigin(t *testing.T) {
	for name, scheme := range map[string]Scheme{
		"Basic":           &Basic{Username: "Mufasa", Password: "secret"},
		"Basic, ahead":    &Basic{Username: "Mufasa", Password: "secret", Ahead: true},
		"Digest":          &Digest{Username: "Mufasa", Password: "secret"},
		"API key":         &APIKey{Key: "secret"},
		"API key, header": &APIKey{Header: "X-API-Key", Key: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = append(seen, r.Header.Get("Authorization")+r.Header.Get("X-API-Key"))
				w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
				w.Header().Add("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth"`)
				w.WriteHeader(http.StatusUnauthorized)
			}))
			defer evil.Close()
			good := httptest.NewServer(http.RedirectHandler(evil.URL, http.StatusTemporaryRedirect))
			defer good.Close()
			client := &http.Client{Transport: New(scheme)}
			for range 2 {
				resp, _ := get(t, client, good.URL)
				require.Equal(t, 401, resp.StatusCode)
				var rejection *Rejection
				require.ErrorAs(t, Explain(resp), &rejection)
				require.Equal(t, ReasonRedirected, rejection.Reason)
			}
			require.Equal(t, []string{"", ""}, seen)
		})
	}
}

// Hosts that are the same by Unicode's case mapping, but that net/http dials by different names.
func TestHostsAreComparedAsTheyAreDialled(t *testing.T) {
	for good, evil := range map[string]string{
		"github.test": "gİthub.test",
		"straße.test": "straẞe.test",
		"kube.test":   "\u212aube.test",
		"σας.test":    "σασ.test",
		"å.test":      "\u212b.test",
	} {
		for _, evil := range []string{evil, url.PathEscape(evil)} {
			dialled := ""
			transport := &Transport{Origins: []string{"https://" + good}, Schemes: []Scheme{&APIKey{Key: "k"}},
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					dialled += req.URL.Host + " " + req.Header.Get("Authorization") + "\n"
					resp := &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}
					if req.URL.Host == good {
						resp.StatusCode, resp.Header["Location"] = 307, []string{"https://" + evil + "/"}
					}
					return resp, nil
				})}
			resp, err := (&http.Client{Transport: transport}).Get("https://" + good)
			require.NoError(t, err)
			host := resp.Request.URL.Host
			require.Equal(t, good+" ApiKey k\n"+host+" \n", dialled)

			u, err := url.Parse("https://" + evil)
			require.NoError(t, err)
			anyOrigin := &Transport{Base: transport.Base, Schemes: transport.Schemes} // what a redirect may lead to
			dialled = ""
			_, err = (&http.Client{Transport: anyOrigin}).Get("https://" + good)
			require.NoError(t, err)
			require.Equal(t, good+" ApiKey k\n"+host+" \n", dialled)
			require.Nil(t, readDigestDomain("https://"+good+"/x", u), "domain")
		}
	}
	ascii := &Transport{Origins: []string{"https://GitHub.test"}, Schemes: []Scheme{&APIKey{Key: "k"}}, Base: &saying{right: "ApiKey k"}}
	require.Equal(t, 200, roundTrip(t, ascii, "https://gitHUB.test/").StatusCode)
}

func TestPlainHTTPIsRefusedByDefault(t *testing.T) {
	refusing := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {
			`Basic realm="x"`, `Digest realm="x", nonce="n", qop="auth"`}}}, nil
	})
	for _, c := range []struct {
		url     string
		schemes []Scheme
		allow   bool
		refused bool
	}{
		{"http://example.com/", []Scheme{&Basic{Username: "u", Password: "p"}}, false, true},
		{"http://example.com/", []Scheme{&Basic{Username: "u", Password: "p", Ahead: true}}, false, true},
		{"http://example.com/", []Scheme{&APIKey{Key: "k"}}, false, true},
		{"http://localhost.example.com/", []Scheme{&APIKey{Key: "k"}}, false, true},
		{"http://example.com/", []Scheme{&Basic{Username: "u", Password: "p"}}, true, false},
		{"http://example.com/", []Scheme{&Digest{Username: "u", Password: "p"}}, false, false},
		{"http://example.com/", []Scheme{&Basic{Username: "u", Password: "p"}, &Digest{Username: "u", Password: "p"}}, false, false},
		{"http://127.0.0.1:1/", []Scheme{&APIKey{Key: "k"}}, false, false},
		{"https://example.com/", []Scheme{&APIKey{Key: "k"}}, false, false},
	} {
		transport := &Transport{Base: refusing, Schemes: c.schemes, AllowPlaintext: c.allow}
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", c.url, nil))
		if !c.refused {
			require.NoError(t, err, fmt.Sprint(c))
			require.Equal(t, 401, resp.StatusCode)
			continue
		}
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, fmt.Sprint(c))
		require.Equal(t, ReasonPlaintext, rejection.Reason)
		require.ErrorContains(t, err, "AllowPlaintext")
	}
}

// A resource that is no URL of a server says nothing of where its token may go.
func TestOriginOfAResource(t *testing.T) {
	for _, resource := range []string{"", "api", "urn:x", "api://client", "https:///x", "https://%zz", "https:x"} {
		require.Nil(t, originOfResource(resource), resource)
	}
	require.Equal(t, origin{"https", "api.test", "443"}, *originOfResource("https://API.test/x"))
}

// A chain of redirects is not followed back without end: one that is longer than any is counts as one that has left the origin.
func TestChainOfRedirectsIsBounded(t *testing.T) {
	for redirects, left := range map[int]bool{10: false, 1_000: true} {
		req := httptest.NewRequest("GET", "https://api.test/", nil)
		for range redirects {
			before := req
			req = httptest.NewRequest("GET", "https://api.test/", nil)
			req.Response = &http.Response{Request: before}
		}
		require.Equal(t, left, hasLeftOrigin(req, byURL), redirects)
	}
}

// byURL is where requests go that say nothing else in their Host.
func byURL(req *http.Request) origin { return originOf(req.URL) }

// goesTo is where a Transport's request goes, whether that is sure or not.
func goesTo(t *Transport, req *http.Request) origin { at, _ := t.goesTo(req); return originOf(at) }

// A Base that rewrites the URL of a request in place, which no RoundTripper may, does not change who asks for credentials.
func TestBaseThatRewritesTheURL(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req.URL.Host = "replica.test"
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: req}
		if req.Header["Authorization"] == nil {
			resp.StatusCode, resp.Header = 401, http.Header{"Www-Authenticate": {`Basic realm="x"`}}
		}
		return resp, nil
	})
	var heard []string
	transport := &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "Mufasa", Password: "secret"}},
		OnEvent: func(_ context.Context, e Event) { heard = append(heard, e.Origin) }}
	req, err := http.NewRequest("GET", "https://api.test/x", nil)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, []string{"https://api.test", "https://api.test", "https://api.test"}, heard)
	require.NotNil(t, transport.auth.spaces.of(spacesKey{"", origin{"https", "api.test", "443"}}))
	require.Nil(t, transport.auth.spaces.of(spacesKey{"", origin{"https", "replica.test", "443"}}))
}
