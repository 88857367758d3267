package main

import (
	"net/http"
	"net/url"
	"strings"

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
	sent := in.proxyUser.given
	switch {
	case len(in.report.Challenges) > 0 && in.has("Basic") == nil && in.has("Digest") == nil:
		return in.proxyWantsOther()
	case !sent && in.proxyURL().User != nil && in.has("Basic") == nil && len(in.report.Challenges) > 0:
		return &cause{"proxy-digest", certain, "The proxy wants Digest, and what its URL has was sent as Basic. The server was not asked.",
			"Give user name and password with -proxy-user. In a program, use authretry.NewProxyTransport, which has Digest."}
	case !sent && in.proxyURL().User != nil:
		return &cause{"proxy-password", certain, "The proxy refuses the user name and password in the proxy's URL. They come from HTTP_PROXY or HTTPS_PROXY, and were sent as Basic. The server was not asked.",
			"Check both, and their percent-encoding. In a URL, @ is %40, : is %3A, / is %2F and % is %25. It is the user of the proxy, who need not be known to the server."}
	case sent:
		return &cause{"proxy-password", likely, "The proxy does not accept the credentials. User name or password is wrong, or the user may not use it.",
			"Type the password of -proxy-user anew. It is the user of the proxy, who need not be known to the server, and the other way round."}
	}
	return &cause{"proxy", certain, "It is the proxy that refuses: it wants credentials of its own. The server was not asked, and its credentials do not help (RFC 9110 §15.5.8).",
		"Give it some with -proxy-user. In a program, use authretry.NewProxyTransport; Basic goes to a proxy with an http:// URL only if its AllowPlaintext is set."}
}

// proxyUnanswered is for a proxy that has had no answer of the server for a request over plain http, and says so, as Squid does.
func (in *inquiry) proxyUnanswered() *cause {
	if in.report.Outcome != outcomePassed || in.resp == nil || in.resp.StatusCode < 500 || in.resp.Header.Get("X-Squid-Error") == "" {
		return nil
	}
	text := "The proxy had no answer from the server: this one is the proxy's own."
	if code, _, _ := strings.Cut(in.resp.Header.Get("X-Squid-Error"), " "); code != "" {
		text += " Its X-Squid-Error is " + in.clean.text(code, 40) + "."
	}
	return &cause{"proxy-unanswered", certain, text, "Check host and port, as seen from the proxy. Or set NO_PROXY for the host, if it can be reached from here without."}
}

// proxyWantsOther is for a proxy that takes neither Basic nor Digest.
func (in *inquiry) proxyWantsOther() *cause {
	sent := " Nothing was sent to it: a user name and a password are not enough."
	switch {
	case in.proxyUser.given:
		sent = " The user name and password of -proxy-user were not sent to it."
	case in.proxyURL().User != nil:
		sent = " The user name and password in its URL were sent as Basic, which it does not take."
	}
	if in.has("Negotiate") == nil && in.has("NTLM") == nil {
		return &cause{"proxy-scheme", certain, "The proxy wants other credentials than a user name and a password. It asks for " + in.asks() + "." + sent,
			"Ask whoever runs the proxy for them. See below for what each challenge needs."}
	}
	return &cause{"proxy-windows", certain, "The proxy wants Kerberos or NTLM." + sent + " The server was not asked.",
		"Run kinit, and try curl --proxy-negotiate -U : by the same proxy. In a program, use module negotiate, or ntlm where there is no Kerberos. Or have the proxy let in by address."}
}

// inProxyURL returns the kind of credentials that http.Transport has taken from the proxy's URL for a request, or a CONNECT.
func (in *inquiry) inProxyURL(h hop) string {
	if h.connect {
		return kindOf(h.req.Header.Get("Proxy-Authorization"))
	}
	if in.proxies == nil || h.req.URL.Scheme != "http" {
		return ""
	}
	if proxy, err := in.proxies(h.req); err != nil || proxy == nil || proxy.User == nil || !strings.HasPrefix(proxy.Scheme, "http") {
		return ""
	}
	return "Basic"
}

// readProxy hides what may be secret in a proxy's URL from the environment, since errors of http.Transport may quote it, and notes if
// that does not find the proxy in it.
func (q *question) readProxy(variable, raw string) {
	q.clean.hide(userinfoOf(raw)...)
	switch u, err := url.Parse(raw); {
	case err == nil:
		q.clean.hideURL(u)
	case strings.Contains(raw, "://"): // without, http.ProxyFromEnvironment puts http:// before it
		q.tokenNotes = append(q.tokenNotes, cause{"proxy-url", "", variable + " is no URL that can be read, so Go programs do not find that proxy, and this one did not.",
			"If it has a user name and a password, write them in percent-encoding. In a URL, @ is %40, : is %3A, / is %2F, # is %23 and % is %25."})
	}
}

// proxyURL returns the proxy for the URL that was asked last, or nil.
func (in *inquiry) proxyURL() *url.URL { return in.proxyFor(in.asked()) }

// proxyFor returns the proxy for a URL, or nil.
func (in *inquiry) proxyFor(u *url.URL) *url.URL {
	if in.proxies == nil {
		return nil
	}
	proxy, err := in.proxies(&http.Request{URL: u})
	if err != nil {
		return nil
	}
	return proxy
}
