package dpop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A login is a source of tokens and the key that they are bound to.
type login struct {
	source *authretry.TokenSource
	key    *Key
	last   atomic.Pointer[readyToken]

	unfit atomic.Pointer[oauth2.Token] // the first token that must not be sent, which is the only one that is replaced for that
}

// A readyToken is a token that may be sent, and what is sent of it. All requests share its header, whose capacity is 1.
type readyToken struct {
	token  *oauth2.Token // as the source has returned it
	header []string
	ath    string
	only   string // the origin of the resource that it is for; "" if that is not known
}

// obtain returns the token that meets r. A token that must not be sent is replaced, if need be by a person: its key has been lost, or
// the program had none when it was issued. If what comes instead is no better, nobody is asked again.
func (l *login) obtain(ctx context.Context, r authretry.TokenRequest) (*readyToken, error) {
	r.Account = authretry.AccountOf(ctx)
	t, err := l.source.Obtain(ctx, r)
	if err != nil {
		return nil, err
	}
	ready, err := l.ready(t)
	if err == nil {
		return ready, nil
	}
	l.unfit.CompareAndSwap(nil, t)
	if l.unfit.Load().AccessToken != t.AccessToken {
		return nil, err
	}
	r.Previous = t
	t, errNew := l.source.Obtain(ctx, r)
	switch {
	case errors.Is(errNew, authretry.ErrTokenRefused): // not now
		return nil, err
	case errors.Is(errNew, authretry.ErrCredentialsRefused): // there is no other token
		l.unfit.Store(&oauth2.Token{}) // or else a person might be asked with each request
		return nil, err
	case errNew != nil:
		return nil, errNew
	}
	return l.ready(t)
}

// ready returns what is sent of a token, or why it must not be sent.
func (l *login) ready(t *oauth2.Token) (*readyToken, error) {
	if r := l.last.Load(); r != nil && r.token == t {
		return r, nil
	}
	if !strings.EqualFold(t.TokenType, "DPoP") {
		return nil, fmt.Errorf("dpop: the token is of type %.40q, and only DPoP tokens are bound to a key (RFC 9449 §5); "+
			"set TokenEndpoint.Proof, or discover.Config.Proof, to the Key; if that is set, the authorization server binds no tokens, and authretry.Bearer is the Scheme", t.TokenType)
	}
	known := authretry.RecordOf(t)
	if known.KeyThumbprint != "" && known.KeyThumbprint != l.key.Thumbprint() {
		return nil, &wrongKeyError{known.KeyThumbprint, l.key.Thumbprint()}
	}
	r := &readyToken{token: t, header: []string{"DPoP " + t.AccessToken}, ath: hashOf(t.AccessToken)}
	if u, err := url.Parse(known.Resource); err == nil {
		r.only = originOf(u)
	}
	l.last.Store(r)
	return r, nil
}

// A wrongKeyError says that a token is bound to another key.
type wrongKeyError struct{ bound, ours string }

func (e *wrongKeyError) Error() string {
	return fmt.Sprintf("dpop: its key has the thumbprint %.60q, and Key has %.60q", e.bound, e.ours)
}

func (e *wrongKeyError) Unwrap() error { return &authretry.Rejection{Reason: authretry.ReasonWrongKey} }

// canSign returns an error if the server takes no proofs of our algorithm.
func (l *login) canSign(c *authretry.Challenge) error {
	if c == nil {
		return nil
	}
	algs := strings.Fields(c.Params.Get("algs"))
	if len(algs) == 0 || slices.Contains(algs, l.key.Algorithm()) {
		return nil
	}
	return fmt.Errorf("%w: the server takes proofs signed by %.100q, and the key signs by %s", authretry.ErrUnsupportedChallenge,
		strings.Join(algs, " "), l.key.Algorithm())
}

var (
	errNoNonce   = fmt.Errorf("%w: the server asks for a nonce, and has given none that can be used", authretry.ErrCredentialsRefused)
	errSameNonce = fmt.Errorf("%w: the server asks for a nonce, and gives the one that it was sent", authretry.ErrCredentialsRefused)
)

// answer sees to it that there is something to answer the refusal of a token and its proof with. It reports whether that is another
// proof for the same token.
func (l *login) answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response, refused string) (sameToken bool, err error) {
	sent, now := nonceIn(refusal.Request.Header.Get(proofHeader)), l.key.nonceFor(refusal.Request)
	switch code := codeOf(c); {
	case code == "use_dpop_nonce" && now == "":
		return false, errNoNonce
	case code == "use_dpop_nonce" && now == sent:
		return false, errSameNonce
	case code == "use_dpop_nonce", code == "invalid_dpop_proof":
		return true, nil // the next proof is another one
	case code == "" && sent == "" && now != "":
		return true, nil // the server does not say what it refuses, but it has given a nonce for the first time
	}
	_, err = l.obtain(ctx, authretry.TokenRequest{Previous: &oauth2.Token{AccessToken: refused}, Challenge: c})
	return false, err
}

// refusedToo is the error for a token that was refused after its proof had been, and is being replaced.
type refusedToo struct{}

func (refusedToo) Error() string {
	return "first the proof was refused, and the next one had what it lacked, such as the nonce of the server; then the token was refused, which is being replaced: the next request has another one, if the TokenSource can get it"
}

func (refusedToo) Unwrap() error { return authretry.ErrCredentialsRefused }

// refused has a token replaced that was refused in the answer to a refusal. It returns what there is to be said of that.
func (l *login) refused(ctx context.Context, token string, c *authretry.Challenge, sameToken bool) error {
	err := l.source.Refused(ctx, &oauth2.Token{AccessToken: token}, c)
	if err == nil && sameToken && (l.source.Fetch != nil || l.source.Store != nil) {
		return refusedToo{}
	}
	return err
}

// proofRefused returns the error for a proof that was refused after another one had been, by a server whose clock says date, if it has
// one. A proof is good for some seconds (RFC 9449 §4.3), so that a clock that is wrong is what is wrong mostly.
func proofRefused(date string, now time.Time) error {
	const usual = 5 * time.Second // what an answer takes, and the seconds in which a date is written
	why := "see that the clock is right, and that the server knows itself by the URL that it is asked by"
	if at, err := http.ParseTime(date); err == nil {
		switch ahead := now.Sub(at).Round(time.Second); {
		case ahead > usual:
			why = fmt.Sprintf("by the clock of the server, that of this machine is %v ahead; set it right", ahead)
		case ahead < -usual:
			why = fmt.Sprintf("by the clock of the server, that of this machine is %v behind; set it right", -ahead)
		}
	}
	return refusedProof("the server refuses a proof, and another one, too (invalid_dpop_proof); " + why)
}

type refusedProof string

func (e refusedProof) Error() string { return string(e) }
func (e refusedProof) Unwrap() error { return authretry.ErrCredentialsRefused }

// nonceIn returns the nonce of a proof of ours.
func nonceIn(proof string) string {
	_, rest, _ := strings.Cut(proof, ".")
	claims, _, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil {
		return ""
	}
	var said struct {
		Nonce string `json:"nonce"`
	}
	_ = json.Unmarshal(data, &said)
	return said.Nonce
}
