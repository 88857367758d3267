package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/internal/returning"
	"golang.org/x/oauth2"
)

// A question is what a token server is asked.
type question struct {
	scheme  *Scheme
	realm   *realm
	account string
	scope   []string
	sent    bool  // set by send: the token server may have got something
	none    error // set by ask if there are no credentials: what there is to be said of that
}

// identityToken is the user name of credentials whose password is an identity token.
const identityToken = "<token>"

// credentials are those of a user; zero for none.
type credentials struct{ username, password string }

func (c credentials) isSet() bool { return c != credentials{} }

// sum returns a hash by which they are told from others.
func (c credentials) sum() [sha256.Size]byte {
	return sha256.Sum256(append(binary.AppendUvarint(nil, uint64(len(c.username))), c.username+c.password...))
}

// ask asks for a token.
func (q *question) ask(ctx context.Context) (*oauth2.Token, error) {
	c, err := q.credentials(ctx)
	if errors.Is(err, authretry.ErrUnsupportedChallenge) {
		q.none = whyNone(q.realm.registry, err)
	} else if err != nil {
		return nil, err
	}
	if !c.isSet() {
		return q.token(ctx, c)
	}
	memory := &q.scheme.memory
	to, ok := memory.trust(q.realm)
	if !ok {
		return nil, &authretry.Rejection{Reason: authretry.ReasonUntrustedRealm, Err: fmt.Errorf("registry: the credentials for %.100q have gone to the token server %.100q before, "+
			"and it now names %.100q; if that is right, name both in Scheme.Realms", q.realm.registry, to.origin, q.realm.origin)}
	}
	defer func() { memory.done(to, q.sent) }()
	end, err := memory.try(ctx, asker{q.account, q.realm.origin, c.sum()})
	if err != nil {
		q.sent = errors.Is(err, authretry.ErrLoginRequired) // for another request
		return nil, err
	}
	how := unknown
	defer func() { end(how) }()
	t, err := q.token(ctx, c)
	switch {
	case err == nil:
		how = good
	case errors.Is(err, authretry.ErrLoginRequired):
		how = bad
	}
	return t, err
}

// token asks for a token with credentials, or without.
func (q *question) token(ctx context.Context, c credentials) (*oauth2.Token, error) {
	resp, body, err := q.exchange(ctx, c)
	if err != nil {
		return nil, err
	}
	if status := resp.StatusCode; status < 200 || status > 299 {
		return nil, failure(resp, body, q.none)
	}
	return readAnswer(resp, body)
}

// credentials returns those of the user for the registry. If there are none, the error wraps authretry.ErrUnsupportedChallenge.
func (q *question) credentials(ctx context.Context) (credentials, error) {
	if q.scheme.Credentials == nil {
		return credentials{}, errNilCredentials
	}
	username, password, err := q.scheme.Credentials(ctx, authretry.CredentialsRequest{
		Account: q.account, Origin: q.realm.registry, Challenge: q.challenge(),
	})
	switch {
	case errors.Is(err, authretry.ErrUnsupportedChallenge):
		return credentials{}, err
	case err != nil:
		return credentials{}, fmt.Errorf("registry: the credentials could not be obtained: %w", err)
	case username != identityToken && strings.Contains(username, ":"):
		return credentials{}, errors.New("registry: a user name must not have a colon (RFC 7617 §2)")
	case strings.ContainsFunc(username+password, isControl):
		return credentials{}, errors.New("registry: the user name or the password has a control character (RFC 7617 §2)")
	case username == "" && password == "":
		return credentials{}, authretry.ErrUnsupportedChallenge
	}
	return credentials{username, password}, nil
}

// challenge returns the challenge that a question answers, which may be of long ago.
func (q *question) challenge() *authretry.Challenge {
	return &authretry.Challenge{Scheme: "Bearer", Params: authretry.Params{
		{Name: "realm", Value: q.realm.url.String()}, {Name: "service", Value: q.realm.service}, {Name: "scope", Value: strings.Join(q.scope, " ")},
	}}
}

// exchange sends the question, by the method that fits the credentials, and reads the answer.
func (q *question) exchange(ctx context.Context, c credentials) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, guarded.Timeout)
	defer cancel()
	isIdentity := c.username == identityToken
	if !isIdentity && (!c.isSet() || !q.scheme.PostPassword || q.scheme.memory.wantsGet(q.realm)) {
		return q.send(ctx, q.get(c))
	}
	resp, body, err := q.send(ctx, q.post(c))
	if err != nil || resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		return resp, body, err
	}
	if isIdentity {
		return nil, nil, fmt.Errorf("registry: the token server %.100q takes no identity tokens, since it answers %d to POST; log in with a password", q.realm.url.Hostname(), resp.StatusCode)
	}
	q.scheme.memory.noteWantsGet(q.realm)
	return q.send(ctx, q.get(c))
}

// get returns the question as GET, with Basic if there are credentials.
func (q *question) get(c credentials) *http.Request {
	u := *q.realm.url
	query := u.Query()
	if q.realm.service != "" {
		query.Set("service", q.realm.service)
	}
	for _, scope := range q.scope {
		query.Add("scope", scope)
	}
	u.RawQuery = query.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	if c.isSet() {
		req.SetBasicAuth(c.username, c.password)
	}
	return req
}

// post returns the question as POST, as OAuth 2.0 has it.
func (q *question) post(c credentials) *http.Request {
	form := url.Values{"client_id": {cmp.Or(q.scheme.ClientID, "authretry")}, "service": {q.realm.service}}
	if len(q.scope) > 0 {
		form.Set("scope", strings.Join(q.scope, " "))
	}
	if c.username == identityToken {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", c.password)
	} else {
		form.Set("grant_type", "password")
		form.Set("username", c.username)
		form.Set("password", c.password)
	}
	text := form.Encode()
	u := *q.realm.url
	return &http.Request{Method: http.MethodPost, URL: &u, Host: u.Host, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
		Header:  http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
}

// send sends a request and reads the answer.
func (q *question) send(ctx context.Context, req *http.Request) (*http.Response, []byte, error) {
	req.Header.Set("Accept", "application/json")
	w := &wire{}
	resp, err := q.client().Do(req.WithContext(w.watched(ctx)))
	if err != nil {
		if refused, ok := errors.AsType[*guarded.RefusedError](err); ok {
			return nil, nil, &authretry.Rejection{Reason: authretry.ReasonUntrustedRealm, Err: refused}
		}
		q.sent = q.sent || w.mayHaveSent()
		return nil, nil, err
	}
	q.sent = true
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, guarded.MaxAnswer+1))
	switch {
	case len(body) > guarded.MaxAnswer:
		return nil, nil, errors.New("registry: the token server's answer is too long")
	case err != nil:
		return nil, nil, fmt.Errorf("registry: the token server's answer broke off: %w", err)
	}
	return resp, body, nil
}

// A wire notes how far a request gets.
type wire struct{ dialed, connected atomic.Bool }

func (w *wire) watched(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { w.dialed.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { w.connected.Store(true) }, // after the handshakes, of a proxy and of TLS
	})
}

// mayHaveSent reports whether something of the request may have gone out. It did not if a connection was wanted, and there was none. A
// RoundTripper that says neither may have sent it.
func (w *wire) mayHaveSent() bool { return w.connected.Load() || !w.dialed.Load() }

// client returns what sends token requests.
func (q *question) client() *http.Client {
	if q.scheme.HTTPClient == nil {
		return q.scheme.policy(q.realm).Client()
	}
	return returning.Client(q.scheme.HTTPClient) // a redirect would take the credentials elsewhere
}
