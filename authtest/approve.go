package authtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Approve plays the person who logs in at an [OAuth]: it opens the URL as a browser would, allows what is asked, and goes to
// where that leads, which is the program that waits. It is for the Open of a login.Browser, and for the VerificationURIComplete of a
// login.DeviceCode. It goes to this machine only, and takes any certificate there. For a server made by [NewPipeServer], use
// [Server.Approve].
func Approve(ctx context.Context, url string) error { return decide(ctx, browser(), url, "allow") }

// Decline plays a person who does not want to.
func Decline(ctx context.Context, url string) error { return decide(ctx, browser(), url, "deny") }

// Approve is [Approve] for a server of any kind. What is not on the server itself it opens as Approve does.
func (s *Server) Approve(ctx context.Context, url string) error {
	return decide(ctx, &http.Client{Transport: either{s}}, url, "allow")
}

// Decline is [Decline] for a server of any kind.
func (s *Server) Decline(ctx context.Context, url string) error {
	return decide(ctx, &http.Client{Transport: either{s}}, url, "deny")
}

// either sends requests to a server by its own client, and others as browser does.
type either struct{ s *Server }

func (e either) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host == e.s.URL {
		return e.s.client.Transport.RoundTrip(req)
	}
	return browser().Transport.RoundTrip(req)
}

var errNotHere = errors.New("authtest: Approve opens URLs on this machine only")

// browser returns a client that goes to this machine only.
func browser() *http.Client {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, errNotHere
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // of servers of tests alone
}

var pageText = regexp.MustCompile(`^<!doctype html><title>authtest</title><p>([^<]*)</p>`)

var ticketField = regexp.MustCompile(`name="ticket" value="([A-Z0-9]+)"`)

// decide opens the page on which a person decides, and does so.
func decide(ctx context.Context, client *http.Client, at, decision string) error {
	page, final, err := open(ctx, client, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	ticket := ticketField.FindStringSubmatch(page)
	if ticket == nil {
		if final.Path != oauthAuthorize && final.Path != oauthVerify {
			return nil // the authorization server has answered the program with an error
		}
		return errors.New("authtest: the page has nothing to decide")
	}
	to := final.ResolveReference(&url.URL{Path: oauthDecide})
	_, _, err = open(ctx, client, http.MethodPost, to.String(), url.Values{"ticket": {ticket[1]}, "decision": {decision}})
	return err
}

// open sends a request, follows redirects, and returns the page and where that is.
func open(ctx context.Context, client *http.Client, method, at string, form url.Values) (string, *url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, strings.NewReader(form.Encode()))
	if err != nil {
		return "", nil, errors.New("authtest: that is no URL to open")
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxForm))
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("authtest: %s answered %d%s", resp.Request.URL.Path, resp.StatusCode, said(body))
	}
	return string(body), resp.Request.URL, err
}

// said is what a page of ours says, with a colon before it. For any other page it is where ours are.
func said(page []byte) string {
	text := pageText.FindSubmatch(page)
	if text == nil {
		return "; the page at which a person logs in to an OAuth is " + oauthAuthorize + ", or " + oauthVerify + " for a device"
	}
	return ": " + html.UnescapeString(string(text[1]))
}
