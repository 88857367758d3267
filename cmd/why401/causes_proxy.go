package main

import (
	"net/http"
	"net/url"

	"github.com/authretry/authretry"
)

func (in *inquiry) proxyRefused() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusProxyAuthRequired || in.is(authretry.ReasonPlaintext) {
		return nil
	}
	if in.proxyURL() == nil {
		return &cause{"proxy", likely, "The status is 407, but no proxy is configured. Only a proxy may send it. Either there is one in between that does not show itself, or the server says 407 where it means 401.",
			"Ask whoever runs the server or the network."}
	}
	if in.proxyUser.given {
		return &cause{"proxy-password", likely, "The proxy does not accept the credentials. " + in.rejectedByProxy(),
			"Type the password of -proxy-user anew. It is the user of the proxy, who need not be known to the server, and the other way round."}
	}
	return &cause{"proxy", certain, "It is the proxy that refuses: it wants credentials of its own. The server was not asked, and its credentials do not help (RFC 9110 §15.5.8).",
		"Give it some with -proxy-user. In a program, use authretry.NewProxyTransport; Basic goes to a proxy with an http:// URL only if its AllowPlaintext is set."}
}

// proxyURL returns the proxy for the URL that was asked last, or nil.
func (in *inquiry) proxyURL() *url.URL {
	if in.proxies == nil {
		return nil
	}
	proxy, err := in.proxies(&http.Request{URL: in.asked()})
	if err != nil {
		return nil
	}
	return proxy
}

func (in *inquiry) rejectedByProxy() string {
	if in.has("Basic") != nil || in.has("Digest") != nil {
		return "User name or password is wrong, or the user may not use it."
	}
	return "It asks for another kind of them: " + in.asks() + "."
}
