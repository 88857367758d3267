package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

const (
	maxURL      = 8 << 10          // bytes of a URL that a server names
	maxAnswer   = 1 << 20          // bytes of an answer that are read
	postTimeout = 30 * time.Second // of one request
)

// client returns what sends requests to the authorization server, but for those to its token endpoint.
func (a *Authorization) client(ctx context.Context, e *authretry.TokenEndpoint) *http.Client {
	if a.HTTPClient != nil {
		return staying(a.HTTPClient)
	}
	return a.tokenClient(ctx, e)
}

// tokenClient returns what sends requests to the token endpoint, each of them once.
func (a *Authorization) tokenClient(ctx context.Context, e *authretry.TokenEndpoint) *http.Client {
	client := e.HTTPClient
	if client == nil && e.Base != nil {
		client = &http.Client{Transport: e.Base}
	}
	if client == nil {
		client, _ = ctx.Value(oauth2.HTTPClient).(*http.Client)
	}
	if client == nil {
		client = &http.Client{}
	}
	return staying(client)
}

// staying returns a client that follows no redirects, which would take secrets elsewhere (RFC 9700 §4.12).
func staying(client *http.Client) *http.Client {
	stay := *client
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &stay
}

// An answer is what an endpoint has answered in JSON.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// post sends a form, with what says who the client is, and reads the answer. It fails with an *Error if that is one.
func (a *Authorization) post(ctx context.Context, e *authretry.TokenEndpoint, to string, form url.Values) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	for again := false; ; again = true {
		got, nonce, err := a.postOnce(ctx, e, to, form)
		if err != nil {
			return nil, err
		}
		if got.status >= 200 && got.status <= 299 {
			return got, nil
		}
		failure := readError(got)
		if failure.Code == "use_dpop_nonce" && nonce && !again { // RFC 9449 §8
			continue
		}
		return nil, failure
	}
}

// postOnce sends it once. It reports whether the answer brought a nonce for a proof.
func (a *Authorization) postOnce(ctx context.Context, e *authretry.TokenEndpoint, to string, form url.Values) (got *answer, nonce bool, err error) {
	sent, header := make(url.Values, len(form)+2), make(http.Header)
	for name, values := range form {
		sent[name] = values
	}
	if e.Auth == nil {
		sent.Set("client_id", e.ClientID)
	} else if err := e.Auth.Authenticate(ctx, e, sent, header); err != nil {
		return nil, false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(sent.Encode()))
	if err != nil {
		return nil, false, errors.New("login: an endpoint of the authorization server is not a URL")
	}
	if req.URL.Scheme != "https" && !e.AllowPlaintext && !(req.URL.Scheme == "http" && isLoopback(req.URL.Hostname())) {
		return nil, false, errors.New("login: an endpoint of the authorization server is not https, so that what is sent there could be read on the way")
	}
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Accept", "application/json")
	req.Header = header
	if e.Proof != nil {
		if err := e.Proof.Prove(req, ""); err != nil {
			return nil, false, fmt.Errorf("login: TokenEndpoint.Proof has failed: %w", err)
		}
	}
	resp, err := a.client(ctx, e).Do(req)
	if err != nil {
		return nil, false, unreachable(err)
	}
	defer resp.Body.Close()
	if e.Proof != nil {
		e.Proof.Learn(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case len(body) > maxAnswer:
		return nil, false, errors.New("login: an answer of the authorization server is too long")
	case err != nil:
		return nil, false, unreachable(err)
	}
	return &answer{resp.StatusCode, resp.Header, body}, e.Proof != nil && resp.Header.Get("DPoP-Nonce") != "", nil
}

// read reads the JSON of an answer.
func (a *answer) read(into any) error {
	if json.Unmarshal(a.body, into) != nil {
		return errors.New("login: an answer of the authorization server is not the JSON that it should be")
	}
	return nil
}

// checkOpenable returns a URL that a browser may be sent to: one that is https, or http to this machine, and has no character
// that means something to a shell or a terminal.
func checkOpenable(what, named string) (*url.URL, error) {
	refuse := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("login: the %s that the authorization server names is not opened: %s", what, why)
	}
	u, err := url.Parse(named)
	switch {
	case named == "" || len(named) > maxURL:
		return refuse("it is empty or too long")
	case strings.ContainsFunc(named, func(r rune) bool { return !strings.ContainsRune(openable, r) }):
		return refuse("it has a character that is not usual in a URL")
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return refuse("it is no URL with a host")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return refuse("it is neither https, nor http to this machine")
	case u.User != nil || strings.Contains(named, "#"):
		return refuse("it has a user name or a fragment in it")
	}
	return u, nil
}

// openable are the characters that a URL to be opened may have.
const openable = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!*+,=&%"

// isLoopback reports whether a host, by its name alone, is this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// isPassing reports whether an error of a request may pass: it is the network's.
func isPassing(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	_, rejected := errors.AsType[*authretry.Rejection](err)
	return ok && !rejected
}
