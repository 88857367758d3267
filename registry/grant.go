package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// young is the age of a token below which the registry's refusal of it for its scope is the last word: another one would be
// granted no more.
const young = 10 * time.Second

// A grant is the token for one set of scopes.
type grant struct {
	scheme            *Scheme
	account, registry string
	scope             scopeSet
	realm             atomic.Pointer[realm] // as the registry has named it last
	source            *authretry.TokenSource

	mu       sync.Mutex // guards what follows
	latest   string     // token
	obtained time.Time
	isDenied bool  // the registry has refused a token because less was granted than was asked for
	none     error // why latest was asked for without credentials; nil if it was not
}

// answer gets the token that answers the challenge c, in place of the one that was refused if that is not "".
func (g *grant) answer(ctx context.Context, c *authretry.Challenge, refused string) error {
	r := authretry.TokenRequest{Challenge: c}
	if refused != "" {
		if codeOf(c) == "insufficient_scope" && g.isFinal(refused) {
			return g.unanswerable(g.less(refused))
		}
		r.Previous = &oauth2.Token{AccessToken: refused}
	}
	_, err := g.source.Obtain(ctx, r)
	if errors.Is(err, authretry.ErrTokenRefused) && codeOf(c) != "invalid_token" {
		if none := g.without(refused); none != nil {
			err = none
		}
	}
	return g.unanswerable(err)
}

var errLess = errors.New("registry: the token server has granted less than it was asked for; the user may not do this, and it is not asked again before the token expires")

// isFinal reports whether there is no better token than this one, which the registry has refused although it was asked for
// all that the registry wants. One that was granted before something was allowed to the user is replaced, once; after
// that, by the token server's own pace. One that was asked for without credentials is replaced at that pace, too: somebody may have
// logged in since.
func (g *grant) isFinal(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token != g.latest {
		return false
	}
	final := g.isDenied && g.none == nil || time.Since(g.obtained) < young
	g.isDenied = true
	return final
}

// less returns what there is to be said of a token that was granted less than it was asked for.
func (g *grant) less(token string) error {
	if none := g.without(token); none != nil {
		return none
	}
	return &authretry.Rejection{Reason: authretry.ReasonInsufficientScope, Err: errLess}
}

// without returns what there is to be said of a token that was asked for without credentials, and does not suffice; nil of others.
func (g *grant) without(token string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token != g.latest || g.none == nil {
		return nil
	}
	return without(g.none)
}

// refused notes that the registry has refused a token for which it had just asked, with an error code or "". It returns what there
// is to be said of that, if there were no credentials; nil if there were.
func (g *grant) refused(token, code string) error {
	if code == "insufficient_scope" {
		g.deny(token)
	} else if code != "" {
		return nil
	}
	if none := g.without(token); none != nil {
		return fmt.Errorf("%w: %w", authretry.ErrCredentialsRefused, none)
	}
	return nil
}

// deny notes that the registry has refused a token because less was granted than was asked for.
func (g *grant) deny(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token == g.latest {
		g.isDenied = true
	}
}

// accepted notes that the registry has accepted a token for which it had asked.
func (g *grant) accepted(token string) { g.source.Accepted(&oauth2.Token{AccessToken: token}) }

// unanswerable makes an error for which the refusal goes to the caller out of those that say so.
func (g *grant) unanswerable(err error) error {
	r, ok := errors.AsType[*authretry.Rejection](err)
	switch {
	case err == nil:
		return nil
	case ok && !errors.Is(err, authretry.ErrCredentialsRefused):
		return fmt.Errorf("%w: %w", authretry.ErrUnsupportedChallenge, r)
	}
	return g.explain(err)
}

// authorize puts the token on a request.
func (g *grant) authorize(req *http.Request) error {
	t, err := g.source.Obtain(req.Context(), authretry.TokenRequest{})
	if err != nil {
		return g.explain(err)
	}
	if req.Header["Authorization"] == nil {
		req.Header["Authorization"] = []string{"Bearer " + t.AccessToken}
	}
	return nil
}

// explain says from where there is no token.
func (g *grant) explain(err error) error {
	why := err.Error()
	if refused, ok := errors.AsType[*refusedCredentials](err); ok {
		why = refused.Error() // it is not a TokenSource that somebody can log in to
	}
	for _, said := range []string{"authretry: ", "no new token could be obtained: ", "registry: "} { // by the text around it
		why = strings.TrimPrefix(why, said)
	}
	return &noToken{fmt.Sprintf("registry: no token from %.100q for %.200q: %s", g.realm.Load().url.Hostname(), g.scope.String(), why), err}
}

// noToken says from where there is no token, and why.
type noToken struct {
	text string
	err  error
}

func (e *noToken) Error() string { return e.text }
func (e *noToken) Unwrap() error { return e.err }

// Format keeps what it wraps out of everything that package fmt prints.
func (e *noToken) Format(f fmt.State, _ rune) { io.WriteString(f, e.text) }

// fetch is the FetchFunc of the source.
func (g *grant) fetch(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
	q := &question{scheme: g.scheme, realm: g.realm.Load(), account: g.account, scope: g.scope.list()}
	t, err := q.ask(ctx)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latest, g.obtained, g.none = t.AccessToken, time.Now(), q.none
	return t, nil
}
