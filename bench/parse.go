package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"strings"

	"github.com/authretry/authretry"
	"github.com/distribution/distribution/registry/client/auth/challenge"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	icholy "github.com/icholy/digest"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A parsed challenge has its scheme and the names of its parameters in lower case.
type parsed struct {
	scheme string
	params map[string]string
}

// A parseCase is a header to read.
type parseCase struct {
	name   string
	header string
	want   []parsed
	target string
	limit  float64 // times the scan
	allocs float64
}

var parseCases = []parseCase{
	{
		name: "Basic", header: `Basic realm="x"`,
		want:   []parsed{{"basic", map[string]string{"realm": "x"}}},
		target: "at most 3 × scan, 2 allocations", limit: 3, allocs: 2,
	},
	{
		name: "RFC 7616's two challenges in a line",
		header: `Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", ` +
			`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`,
		want:   []parsed{digestParsed("SHA-256"), digestParsed("MD5")},
		target: "at most 1.5 × scan, 4 allocations", limit: 1.5, allocs: 4,
	},
	{
		name:   "a registry's Bearer",
		header: `Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`,
		want: []parsed{{"bearer", map[string]string{
			"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/alpine:pull",
		}}},
		target: "at most 2 × scan, 3 allocations", limit: 2, allocs: 3,
	},
	{
		name:   "a mixed line with escapes",
		header: `Negotiate, Basic realm="the \"lab\", floor 2", charset="UTF-8", Bearer realm="api"`,
		want: []parsed{
			{"negotiate", nil},
			{"basic", map[string]string{"realm": `the "lab", floor 2`, "charset": "UTF-8"}},
			{"bearer", map[string]string{"realm": "api"}},
		},
		target: "at most 2 × scan, 3 allocations", limit: 2, allocs: 3,
	},
}

func digestParsed(algorithm string) parsed {
	return parsed{"digest", map[string]string{"realm": realm, "qop": "auth, auth-int", "algorithm": algorithm, "nonce": nonce, "opaque": opaque}}
}

// scan is the bound: it looks at each byte once, and finds the parameters.
func scan(s string) (params int) {
	quoted, escaped := false, false
	start := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',' || c == ' ' || c == '\t':
			start = i + 1
		case c == '=' && i > start:
			params++
		}
	}
	return params
}

// A parser reads a header; with result, it returns what it has read.
type parser func(values []string, result bool) ([]parsed, error)

var parsers = map[string]parser{
	ours: func(values []string, result bool) ([]parsed, error) {
		challenges, err := authretry.ParseChallenges(values)
		if !result {
			return nil, err
		}
		var all []parsed
		for _, c := range challenges {
			p := parsed{scheme: strings.ToLower(c.Scheme)}
			for _, param := range c.Params {
				p.set(param.Name, param.Value)
			}
			all = append(all, p)
		}
		return all, err
	},
	"MCP go-sdk": func(values []string, result bool) ([]parsed, error) {
		challenges, err := oauthex.ParseWWWAuthenticate(values)
		if !result {
			return nil, err
		}
		var all []parsed
		for _, c := range challenges {
			p := parsed{scheme: strings.ToLower(c.Scheme)}
			for name, value := range c.Params {
				p.set(name, value)
			}
			all = append(all, p)
		}
		return all, err
	},
	"distribution": func(values []string, result bool) ([]parsed, error) {
		challenges := challenge.ResponseChallenges(&http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": values}})
		if !result {
			return nil, nil
		}
		var all []parsed
		for _, c := range challenges {
			p := parsed{scheme: strings.ToLower(c.Scheme)}
			for name, value := range c.Parameters {
				p.set(name, value)
			}
			all = append(all, p)
		}
		return all, nil
	},
	"icholy": func(values []string, result bool) ([]parsed, error) {
		c, err := icholy.FindChallenge(http.Header{"Www-Authenticate": values})
		if !result || err != nil {
			return nil, err
		}
		return []parsed{{"digest", map[string]string{
			"realm": c.Realm, "qop": strings.Join(c.QOP, ", "), "algorithm": c.Algorithm, "nonce": c.Nonce, "opaque": c.Opaque,
		}}}, nil
	},
}

func (p *parsed) set(name, value string) {
	if p.params == nil {
		p.params = map[string]string{}
	}
	p.params[strings.ToLower(name)] = value
}

// check returns what a parser gets wrong.
func (c parseCase) check(p parser) error {
	got, err := p([]string{c.header}, true)
	if err != nil {
		return err
	}
	if len(got) != len(c.want) {
		return fmt.Errorf("%d challenges instead of %d", len(got), len(c.want))
	}
	for i := range got {
		if got[i].scheme != c.want[i].scheme || !maps.Equal(got[i].params, c.want[i].params) {
			return fmt.Errorf("%s has wrong parameters", c.want[i].scheme)
		}
	}
	return nil
}

// parseRow measures the reading of a header.
func parseRow(e effort, c parseCase) ([]timing, error) {
	values := []string{c.header}
	cs := []contender{{name: bound, op: func() error { runtime.KeepAlive(scan(values[0])); return nil }}}
	for name, p := range inOrder(parsers) {
		if name == "icholy" && !strings.HasPrefix(c.header, "Digest") {
			continue // it knows nothing else
		}
		cs = append(cs, contender{
			name:  name,
			op:    func() error { _, err := p(values, false); return err },
			check: func() error { return c.check(p) },
		})
	}
	return compare(e, 1, bound, cs...)
}

// A shape is a kind of hostile header.
type shape struct {
	name string
	unit string // after the scheme, over and over
}

var shapes = []shape{
	{"commas", `,`},
	{"quotes", `"`},
	{"unclosed", `x`}, // after an opening quote
	{"params", `a="b", `},
	{"escapes", `\"`}, // after an opening quote
	{"challenges", `Basic, `},
	{"all of them", `,,"x" a="b\"\\", Basic, b="c` + "\t" + `,"`},
}

// header returns size bytes of the shape, in a challenge of the scheme.
func (s shape) header(scheme string, size int) string {
	start := scheme + " "
	switch s.name {
	case "unclosed", "escapes":
		start += `realm="`
	case "quotes":
		start += `realm=`
	case "challenges":
		start = ""
	}
	return (start + strings.Repeat(s.unit, size/len(s.unit)+1))[:size]
}

// through reaches parsers that have no function of their own, by the request that makes them read a refusal.
var through = map[string]parser{
	"ggcr, by Ping": func(values []string, _ bool) ([]parsed, error) {
		c, err := transport.Ping(context.Background(), registry, refusal(values))
		if err != nil {
			return nil, err
		}
		return []parsed{{strings.ToLower(c.Scheme), c.Parameters}}, nil
	},
	"oras, by Client.Do": func(values []string, _ bool) ([]parsed, error) {
		client := &auth.Client{Client: &http.Client{Transport: refusal(values)}}
		req, err := http.NewRequest("GET", "https://registry.example.com/v2/", nil)
		if err != nil {
			return nil, err
		}
		_, err = client.Do(req)
		return nil, err
	},
}

var registry = func() name.Registry {
	r, err := name.NewRegistry("registry.example.com")
	if err != nil {
		panic(err)
	}
	return r
}()

func refusal(values []string) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path != "/v2/" {
			return nil, errors.New("no token")
		}
		return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": values}, Body: http.NoBody, Request: req}, nil
	})
}

// hostileRow measures how long a parser takes for a shape, whatever it makes of it.
func hostileRow(e effort, s shape, size int) ([]timing, error) {
	e.rounds = max(3, e.rounds/4)
	never := func() error { return nil }
	line := s.header("Bearer", size)
	cs := []contender{{name: bound, op: func() error { runtime.KeepAlive(scan(line)); return nil }}}
	all := maps.Clone(parsers)
	maps.Copy(all, through)
	for name, p := range inOrder(all) {
		values := []string{line}
		if name == "icholy" {
			values[0] = s.header("Digest", size)
		}
		cs = append(cs, contender{name: name, op: func() error { _, err := p(values, false); return err }, check: never})
	}
	return compare(e, 1, bound, cs...)
}
