package main

import (
	"strconv"
	"strings"

	"github.com/authretry/authretry"
)

// A recipe is how a Go program satisfies a challenge: statements, with what imports are usual, that compile as they are and
// declare client. What is secret comes from the environment.
type recipe struct {
	setup  string // statements before
	scheme string // the authretry.Scheme
	proxy  string // all of it for a proxy, if that is another; the test finds it, as scheme, in the examples of its module
}

// code returns the statements; empty if there is no recipe.
func (r recipe) code(proxy bool) string {
	if r.scheme == "" {
		return ""
	}
	if proxy && r.proxy != "" {
		return indented(r.proxy)
	}
	if !proxy {
		return indented(r.setup + "client := &http.Client{Transport: authretry.New(\n" + r.scheme + ",\n)}")
	}
	code := r.setup + "proxied := authretry.NewProxyTransport(nil,\n" + r.scheme + ",\n)\n"
	if r.scheme != digest.scheme && r.scheme != kerberos.scheme {
		code += "// For an http:// URL, where the network up to the proxy can be trusted:\nproxied.AllowPlaintext = true\n"
	}
	return indented(code + "client := &http.Client{Transport: proxied}")
}

// indented indents what is within brackets that are open at the end of a line.
func indented(code string) string {
	var b strings.Builder
	depth := 0
	for line := range strings.Lines(code) {
		opened := strings.Count(line, "(") + strings.Count(line, "{") - strings.Count(line, ")") - strings.Count(line, "}")
		if opened < 0 {
			depth--
		}
		b.WriteString(strings.Repeat("    ", max(depth, 0)) + line)
		if opened > 0 {
			depth++
		}
	}
	return b.String()
}

// openKey is how a recipe begins whose tokens are bound to a key.
const openKey = "key, err := dpop.OpenKey(os.Getenv(\"KEY_FILE\")) // made if it is not there\nif err != nil {\nlog.Fatal(err)\n}\n"

var (
	basicRecipe = recipe{scheme: "&authretry.Basic{\nUsername: os.Getenv(\"API_USER\"),\nPassword: os.Getenv(\"API_PASSWORD\"),\n}"}
	digest      = recipe{scheme: "&authretry.Digest{\nUsername: os.Getenv(\"API_USER\"),\nPassword: os.Getenv(\"API_PASSWORD\"),\n}"}
	bearer      = recipe{
		setup:  "token := &oauth2.Token{AccessToken: os.Getenv(\"API_TOKEN\")}\n",
		scheme: "&authretry.Bearer{Source: oauth2.StaticTokenSource(token)}",
	}
	renewed = recipe{
		setup: "endpoint := &authretry.TokenEndpoint{\nURL: os.Getenv(\"TOKEN_URL\"), ClientID: os.Getenv(\"CLIENT_ID\"),\n" +
			"Auth: authretry.SecretBasic(os.Getenv(\"CLIENT_SECRET\")),\n}\n" +
			"tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials()}\n",
		scheme: "&authretry.Bearer{Source: tokens, StepUp: true}",
	}
	discovered = recipe{
		setup: "config := &discover.Config{Flow: login.Auto(os.Stderr)}\n" +
			"tokens := &authretry.TokenSource{Fetch: config.Fetch, Login: config.Login}\n",
		scheme: "&authretry.Bearer{Source: tokens, StepUp: true}",
	}
	bound = recipe{
		setup: openKey +
			"endpoint := &authretry.TokenEndpoint{\nURL: os.Getenv(\"TOKEN_URL\"), ClientID: os.Getenv(\"CLIENT_ID\"),\nProof: key,\n}\n" +
			"tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials()}\n",
		scheme: "&dpop.Scheme{Source: tokens, Key: key}",
	}
	discoveredBound = recipe{
		setup: openKey +
			"config := &discover.Config{Flow: login.Auto(os.Stderr), Proof: key}\n" +
			"tokens := &authretry.TokenSource{Fetch: config.Fetch, Login: config.Login}\n",
		scheme: "&dpop.Scheme{Source: tokens, Key: key, StepUp: true}",
	}
	kerberos = recipe{
		setup:  "// go get github.com/authretry/authretry/negotiate, and kinit\n",
		scheme: "&negotiate.Scheme{}",
	}
	windows = recipe{
		setup:  "// go get github.com/authretry/authretry/ntlm; a user is DOMAIN\\name\n",
		scheme: "&ntlm.Scheme{\nUsername: os.Getenv(\"API_USER\"),\nPassword: os.Getenv(\"API_PASSWORD\"),\n}",
		proxy: "// go get github.com/authretry/authretry/ntlm; a user is DOMAIN\\name\n" +
			"dialer := &ntlm.ProxyDialer{\nProxy: &url.URL{Scheme: \"http\", Host: \"proxy.example.com:3128\"},\n" +
			"Username: os.Getenv(\"API_USER\"),\nPassword: os.Getenv(\"API_PASSWORD\"),\n" +
			"AllowPlaintext: true, // most such proxies have no TLS\n}\n" +
			"base := &http.Transport{DialContext: dialer.DialContext}\nclient := &http.Client{Transport: base}",
	}
	fromRegistry = recipe{
		setup:  "credentials := registry.DockerConfig(\"\") // as docker login leaves them\n",
		scheme: "&registry.Scheme{Credentials: credentials}",
	}
)

// keyRecipe is for a fixed key, after a word in Authorization.
func keyRecipe(prefix string) recipe {
	return recipe{scheme: "&authretry.APIKey{\nPrefix: " + strconv.Quote(prefix) + ",\nKey: os.Getenv(\"API_KEY\"),\n}"}
}

// needsOf returns what satisfies the challenge c.
func needsOf(c authretry.Challenge) (needs string, r recipe) {
	s, _ := schemeNamed(c.Scheme)
	isBearer, isDPoP := strings.EqualFold(c.Scheme, "Bearer"), strings.EqualFold(c.Scheme, "DPoP")
	switch {
	case isRegistry(c):
		return "a token that the realm's URL gives out to a GET with service and scope as its query, with user name and password or without; package registry gets it", fromRegistry
	case isBearer && c.Params.Get("error") == "insufficient_scope":
		needs = "an access token with another scope: a new login or client-credentials request that asks for it"
		if scope := c.Params.Get("scope"); scope != "" {
			needs = "an access token whose scope includes " + scope + ": a new login or client-credentials request that asks for it"
		}
		return needs, renewed
	case isBearer && c.Params.Get("resource_metadata") != "":
		return s.needs + "; the metadata says where to get one, and why401 -login tries it", discovered
	case isDPoP && c.Params.Get("resource_metadata") != "":
		return s.needs + "; the metadata says where to get the token, and why401 -login tries it", discoveredBound
	}
	return s.needs, s.recipe
}

// needBound says of challenges that ask for a token that it must be bound to a key, and how a program discovers where to get one.
func needBound(challenges []challenge) {
	words, _ := schemeNamed("DPoP")
	for i := range challenges {
		if c := &challenges[i]; strings.EqualFold(c.Scheme, "Bearer") || strings.EqualFold(c.Scheme, "DPoP") {
			c.Needs, c.Snippet = words.needs, discoveredBound.code(c.Proxy)
		}
	}
}

// isRegistry reports whether c is of the kind that container registries send.
func isRegistry(c authretry.Challenge) bool {
	realm := c.Params.Get("realm")
	return strings.EqualFold(c.Scheme, "Bearer") && c.Params.Get("service") != "" && (strings.HasPrefix(realm, "https://") || strings.HasPrefix(realm, "http://"))
}
