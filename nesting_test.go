package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// Of nested Transports, the one that has sent credentials says why they were refused.
func TestNestedTransportsExplainWhatTheyDid(t *testing.T) {
	const here, elsewhere = "https://api.example.com", "https://other.example.com"
	key := &APIKey{Header: "X-API-Key", Key: "k"}
	bearer := &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"})}
	digest := &Digest{Username: "u", Password: "p"}
	for name, c := range map[string]struct {
		outer, inner *Transport
		reason       Reason
		tried        string
	}{
		"the outer one has sent, the inner one is for others": {
			&Transport{Schemes: []Scheme{key}}, &Transport{Schemes: []Scheme{digest}, Origins: []string{elsewhere}}, ReasonCredentialsRefused, "X-Api-Key"},
		"the inner one has sent, the outer one is for others": {
			&Transport{Schemes: []Scheme{digest}, Origins: []string{elsewhere}}, &Transport{Schemes: []Scheme{key}}, ReasonCredentialsRefused, "X-Api-Key"},
		"the outer one has set Authorization, which the inner one left alone": {
			&Transport{Schemes: []Scheme{bearer}}, &Transport{Schemes: []Scheme{digest}}, ReasonCredentialsRefused, "Bearer"},
		"both have sent": {
			&Transport{Schemes: []Scheme{key}}, &Transport{Schemes: []Scheme{bearer}}, ReasonCredentialsRefused, "Bearer"},
		"the outer one has sent, the inner one has no answer": {
			&Transport{Schemes: []Scheme{key}}, &Transport{Schemes: []Scheme{digest}}, ReasonCredentialsRefused, "X-Api-Key"},
		"both are for others": {
			&Transport{Schemes: []Scheme{key}, Origins: []string{elsewhere}}, &Transport{Schemes: []Scheme{digest}, Origins: []string{elsewhere}}, ReasonOriginNotListed, ""},
		"the inner one has no answer, the outer one is for others": {
			&Transport{Schemes: []Scheme{key}, Origins: []string{elsewhere}}, &Transport{Schemes: []Scheme{digest}, Origins: []string{here}}, ReasonUnsupportedScheme, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.inner.Base = &saying{challenge: `Negotiate`}
			c.outer.Base = c.inner
			r := rejectionFor(t, c.outer, here+"/")
			require.Equal(t, c.reason, r.Reason)
			if c.tried != "" {
				require.Contains(t, r.Tried, c.tried)
			}
		})
	}
}

// What is attached to a response counts before its status: a 200 that Refused calls a refusal, through two Transports.
func TestExplanationOfAnInnerTransportGetsOut(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
	})
	inner := &Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}, Refused: func(*http.Response) bool { return true }}
	outer := &Transport{Base: inner, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
	r := rejectionFor(t, outer, "https://api.example.com/")
	require.Equal(t, ReasonCredentialsRefused, r.Reason)
	require.Equal(t, 200, r.Status)
}

// Who sends resp.Request again gets an answer to that, and a context that does not grow.
func TestResponsesRequestIsGoodToSendAgain(t *testing.T) {
	server := &saying{challenge: "Negotiate"}
	transport := &Transport{Base: server, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
	req := httptest.NewRequest("GET", "https://api.example.com/", nil)
	size := 0
	for i := range 5 {
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.Error(t, Explain(resp))
		req = resp.Request
		if text := fmt.Sprintf("%v", req.Context()); i == 0 {
			size = len(text)
		} else {
			require.Len(t, text, size)
		}
	}
	ok := &Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
	}), Schemes: transport.Schemes}
	resp, err := ok.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, Explain(resp), "it says nothing of the response before")
}

// Every request that a Transport sees ends in exactly one EventDone, whatever becomes of it.
func TestEveryRequestIsDoneOnce(t *testing.T) {
	status := func(status int) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Request: req, Body: http.NoBody,
				Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}, "Proxy-Authenticate": {`Basic realm="x"`}}}, nil
		})
	}
	basic := &Basic{Username: "u", Password: "p"}
	closed := errors.New("connection closed")
	failing := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, closed })
	for name, c := range map[string]struct {
		transport *Transport
		url       string
		header    string
		status    int
		reason    Reason
		refused   int
	}{
		"success":            {&Transport{Base: status(200), Schemes: []Scheme{basic}}, "", "", 200, 0, 0},
		"refused":            {&Transport{Base: status(401), Schemes: []Scheme{basic}}, "", "", 401, ReasonCredentialsRefused, 1},
		"a proxy's":          {&Transport{Base: status(407), Schemes: []Scheme{basic}}, "", "", 407, ReasonProxyAuthentication, 1},
		"not listed":         {&Transport{Base: status(401), Schemes: []Scheme{basic}, Origins: []string{"https://other.test"}}, "", "", 401, ReasonOriginNotListed, 1},
		"not listed, good":   {&Transport{Base: status(200), Schemes: []Scheme{basic}, Origins: []string{"https://other.test"}}, "", "", 200, 0, 0},
		"own Authorization":  {&Transport{Base: status(401), Schemes: []Scheme{basic}}, "", "Basic own", 401, ReasonOwnAuthorization, 1},
		"own, good":          {&Transport{Base: status(200), Schemes: []Scheme{basic}}, "", "Basic own", 200, 0, 0},
		"own, failing":       {&Transport{Base: failing, Schemes: []Scheme{basic}}, "", "Basic own", 0, 0, 0},
		"failing":            {&Transport{Base: failing, Schemes: []Scheme{basic}}, "", "", 0, 0, 0},
		"no response":        {&Transport{Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, nil }), Schemes: []Scheme{basic}}, "", "", 0, 0, 0},
		"plain http":         {&Transport{Base: status(401), Schemes: []Scheme{basic}}, "http://api.example.com/", "", 0, ReasonPlaintext, 0},
		"nothing configured": {&Transport{Base: status(401)}, "", "", 0, ReasonMisconfigured, 0},
		"another protocol":   {&Transport{Schemes: []Scheme{basic}}, "gopher://a.test/?secret=x", "", 0, 0, 0},
		"no credentials":     {&Transport{Base: status(401), Schemes: []Scheme{&Bearer{Source: &TokenSource{}}}}, "", "", 0, ReasonNoCredentials, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var done []Event
			refused := 0
			c.transport.OnEvent = func(_ context.Context, e Event) {
				switch e.Kind {
				case EventDone:
					done = append(done, e)
				case EventRefused:
					require.Equal(t, c.reason, e.Reason)
					refused++
				}
			}
			if c.url == "" {
				c.url = "https://api.example.com/"
			}
			req, err := http.NewRequest("GET", c.url, nil)
			require.NoError(t, err)
			if c.header != "" {
				req.Header.Set("Authorization", c.header)
			}
			c.transport.RoundTrip(req)
			require.Len(t, done, 1)
			require.Equal(t, c.status, done[0].Status)
			require.Equal(t, c.reason, done[0].Reason)
			require.Equal(t, c.refused, refused)
			require.Equal(t, c.status == 0, done[0].Err != nil)
			if done[0].Err != nil {
				require.NotContains(t, done[0].Err.Error(), "secret")
			}
		})
	}
}

// One refusal is one event, however much it asks for, and what the server says in it is cut.
func TestChallengesAreOneEvent(t *testing.T) {
	var challenged []Event
	transport := &Transport{Base: &saying{challenge: `Digest realm="` + strings.Repeat("r", 1<<16) + `", nonce="n", Basic realm="x", Digest realm="z", ` + strings.Repeat("s", 1000) + ` a=b, A, B, C`},
		Schemes: []Scheme{&APIKey{Key: "k"}}, OnEvent: func(_ context.Context, e Event) {
			if e.Kind == EventChallenged {
				challenged = append(challenged, e)
			}
		}}
	roundTrip(t, transport, "https://api.example.com/")
	require.Equal(t, []Event{{Kind: EventChallenged, Origin: "https://api.example.com", Attempt: 1, Status: 401,
		Scheme: "Digest, Basic, " + strings.Repeat("s", 100) + ", A", Realm: strings.Repeat("r", 100)}}, challenged)
}
