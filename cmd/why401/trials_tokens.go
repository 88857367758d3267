package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	names "github.com/authretry/authretry/internal/guarded" // guarded is what the tests call a handler
)

// Who gives out the tokens that a challenge asks for is asked, where that tells whether they can be had at all.

// metadataTime is how long the metadata of a server may take that nobody has asked to log in at.
const metadataTime = 4 * time.Second

// lookForMetadata reads the metadata that the challenge names (RFC 9728 §5.1), and that of the authorization server, as -login does. It
// notes why that is not possible.
func (in *inquiry) lookForMetadata(ctx context.Context) {
	c := in.has("Bearer")
	if c == nil {
		c = in.has("DPoP")
	}
	if c == nil || c.Params.Get("resource_metadata") == "" || !in.is401() || in.gave() || in.login.wanted || in.proxyURL() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	at := *in.asked()
	at.RawQuery, at.Fragment = "", ""
	_, _, in.trials.metadata = in.newDiscovery().Discover(ctx, authretry.TokenRequest{Challenge: c, URL: at.String(), RemoteAddr: in.remote})
}

// noMetadata says what is wrong with the metadata that the challenge names.
func (in *inquiry) noMetadata() *cause {
	if in.trials.metadata == nil {
		return nil
	}
	return in.metadataCause(in.trials.metadata)
}

// metadataCause says why nobody can log in as the metadata says; nil if err is not about that.
func (in *inquiry) metadataCause(err error) *cause {
	is := func(other error) bool { return errors.Is(err, other) }
	const fix = "Find the authorization server in the API's documentation. Get a token there, and try it with -token-env"
	switch {
	case is(context.DeadlineExceeded) || isTimeout(err):
		return &cause{"login-metadata", certain, "The metadata that says who gives out tokens did not come in time (RFC 9728)." + in.metadataDetail(err), "Try again; whoever runs the server should see why it is so slow. " + fix + "."}
	case is(discover.ErrOutOfOrder):
		return &cause{"login-metadata", certain, "A server that says who gives out tokens is out of order." + in.serverDetail(err), "Try again later. If it stays so: " + fix + "."}
	case is(discover.ErrUnreachable):
		return &cause{"login-metadata", certain, "A server that says who gives out tokens could not be reached." + in.serverDetail(err),
			"See whether it runs, and whether its name and its certificate are right. " + fix + "."}
	case is(discover.ErrOtherResource):
		return &cause{"login-other-resource", certain, "The metadata is that of another resource than was asked (RFC 9728 §3.3)." + in.metadataDetail(err),
			"Ask the URL that the metadata has as its resource. If the one asked is right, the metadata has to be put right."}
	case is(discover.ErrOtherIssuer):
		return &cause{"login-other-issuer", certain, "The authorization server's metadata names another issuer (RFC 8414 §3.3).", "Whoever runs it has to put that right. " + fix + "."}
	case is(discover.ErrNoMetadata) && in.param("resource_metadata") != "":
		return &cause{"login-metadata", certain, "The metadata that says who gives out tokens cannot be read." + in.metadataDetail(err), fix + "; whoever runs the server should put the metadata right (RFC 9728)."}
	case is(discover.ErrNoMetadata):
		return &cause{"login-metadata", certain, "The server does not say who gives out its tokens. It has no metadata (RFC 9728) that can be read, and its challenge names none.",
			fix + "; or name it with -issuer, if the resource has metadata that names others, too."}
	case is(discover.ErrRefusedURL) || is(discover.ErrNotAllowed):
		return &cause{"login-url", certain, "The server names an authorization server that is not asked. It leads inside, or is not https, or is not the one of -issuer.",
			"Name the authorization server with -issuer, if it is right."}
	}
	return nil
}

// metadataDetail returns what went wrong with the metadata, such as the status, in a sentence.
func (in *inquiry) metadataDetail(err error) string {
	text := " It is that of resource_metadata"
	if named, parseErr := url.Parse(in.param("resource_metadata")); parseErr == nil && named.Host != "" {
		text += ", " + in.clean.url(named)
	}
	return text + in.afterText(err, discover.ErrNoMetadata) + "."
}

// serverDetail returns, in a sentence, which server has not said what it was asked for, and what happened.
func (in *inquiry) serverDetail(err error) string {
	e, ok := errors.AsType[*discover.Error](err)
	if !ok || e.Step == "" {
		return ""
	}
	return " It is " + in.clean.text(e.Host, 100) + ", which was asked for the " + e.Step + in.afterText(err, e.What) + "."
}

// afterText returns what an error says after the text of another.
func (in *inquiry) afterText(err, what error) string {
	if _, detail, ok := strings.Cut(err.Error(), what.Error()); ok && strings.TrimSpace(detail) != "" {
		return " " + in.clean.text(strings.Trim(detail, " :"), 200)
	}
	return ""
}

// askTokenService asks the token service that a container registry names for a token. Where it is of the same origin, it gets the user name
// and the password, as it does from any client; another one gets none, nor does one to which redirects have led.
func (in *inquiry) askTokenService(ctx context.Context) {
	c := in.has("Bearer")
	if in.method != http.MethodGet || c == nil || !isRegistry(*c) || in.token != "" || in.ownKey() {
		return
	}
	realm, err := url.Parse(c.Params.Get("realm"))
	if err != nil || realm.User != nil || !in.mayAsk(realm) {
		return
	}
	query := realm.Query()
	query.Set("service", c.Params.Get("service"))
	if scope := c.Params.Get("scope"); scope != "" {
		query.Set("scope", scope)
	}
	realm.RawQuery = query.Encode()
	policy := in.policy()
	if in.proxyFor(realm) != nil && policy.CheckHost(ctx, realm.Hostname()) != nil {
		return
	}
	isOwn := in.user.given && sameOrigin(realm, in.asked()) && !left(in.requests()) && (realm.Scheme == "https" || isLoopback(realm.Hostname()) || in.allowPlaintext)
	schemes := in.schemes
	again := in.send(ctx, manner{trial: "at the token service", url: realm, policy: policy, bare: !isOwn, password: isOwn})
	in.schemes = schemes
	if _, refused := errors.AsType[*names.RefusedError](again.err); refused {
		return
	}
	in.trials.hops = append(in.trials.hops, again.hops...) // the server has named the values of the query, which are no secrets
	in.trials.tokenService, in.trials.sentPassword = &again, isOwn
	if isOwn && again.resp != nil && again.resp.StatusCode == http.StatusOK {
		in.askRegistry(ctx, again.body)
	}
}

// askRegistry asks the registry with the token that its own token service has made of the user name and the password.
func (in *inquiry) askRegistry(ctx context.Context, body string) {
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal([]byte(body), &answer) != nil || answer.Token+answer.AccessToken == "" {
		return
	}
	token := cmp.Or(answer.Token, answer.AccessToken)
	in.clean.hide(token)
	again := in.sendAgain(ctx, manner{trial: "with the token service's token", token: token})
	if again.resp != nil {
		in.trials.registry = &again
	}
}

// mayAsk reports whether a token service that a server has named is asked: at a name, unless that is an address to a browser, such as
// localhost or 127.1, which may lead to what only we can reach; or where that server is itself.
func (in *inquiry) mayAsk(realm *url.URL) bool {
	at := in.asked()
	addr, ok := names.ReadHost(realm.Hostname())
	return ok && !addr.IsValid() || sameOrigin(realm, at) || isLoopback(at.Hostname()) && isLoopback(realm.Hostname())
}

// policy says which addresses may be asked that the server has named.
func (in *inquiry) policy() *names.Policy {
	p := &names.Policy{Home: in.asked(), Named: func(host string) bool { return lowerASCII(host) == lowerASCII(in.url.Hostname()) }}
	if at, err := netip.ParseAddrPort(in.remote); err == nil && in.proxyURL() == nil {
		p.HomeAddr = at.Addr()
	}
	return p
}

// tokenService says what came of asking for a token.
func (in *inquiry) tokenService() *cause {
	again := in.trials.tokenService
	if again == nil {
		return nil
	}
	host := in.param("realm")
	if u, err := url.Parse(host); err == nil {
		host = in.clean.url(originURL(u))
	}
	switch {
	case again.err != nil:
		return &cause{"token-service", certain, "The token service that the registry names cannot be reached. It is " + host + ", and there was no answer: " + in.errorText(again.err, 200) + ".",
			"Check the name and the network. Or have the registry's realm put right."}
	case in.trials.registry != nil && isRefusal(in.trials.registry.resp.StatusCode):
		return &cause{"registry-denied", certain, "The user may not do this: the registry refuses the token made for it. The token service takes the user name and the password, and has made a token; the registry answered " + statusText(in.trials.registry.resp.StatusCode) + " to that.",
			"Have the user given the right to the repository. Check the repository's name, too: of one that there is not, registries say the same."}
	case in.trials.sentPassword && again.resp.StatusCode == http.StatusOK:
		return &cause{"token-service", certain, "The user name and the password are right: the token service takes them. It has made a token of them; the registry itself takes only such tokens.",
			"Have the token service at the realm's URL make a token of them. In a program, package registry does that."}
	case in.trials.sentPassword && isRefusal(again.resp.StatusCode) && !strings.Contains(again.resp.Header.Get("WWW-Authenticate"), "Bearer"):
		return &cause{"wrong-password", certain, "The token service refuses the user name and the password. It answered " + statusText(again.resp.StatusCode) + ".",
			"Type the password anew. With two-factor login, it is an access token in its place."}
	}
	return nil
}
