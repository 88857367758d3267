package authretry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Bounds of what challenges can have a TokenSource ask for besides what it has.
const (
	maxStepUps    = 8        // in MinRefreshInterval
	maxNeedScopes = 64       // scopes of one token
	maxScopeBytes = 4 << 10  // of these
	maxClaims     = 16 << 10 // bytes of claims
	maxNeedACR    = 16       // authentication context classes
)

// needs are what a token must be good for, besides being one that is not refused.
type needs struct {
	scopes    []string // sorted, each once
	claims    string   // a JSON object, as json.Marshal writes it; "" if there are none
	acr       []string // by preference
	maxAge    time.Duration
	hasMaxAge bool
}

// needsOf returns what a TokenRequest asks for, or an error if that cannot be sent.
func needsOf(r *TokenRequest) (n needs, err error) {
	for _, scope := range r.Scopes {
		if !isScope(scope) {
			return needs{}, fmt.Errorf("authretry: a scope is empty or has a character that scopes cannot have (RFC 6749 §3.3)")
		}
	}
	if n.claims, err = mergeClaims("", r.Claims); err != nil {
		return needs{}, err
	}
	if r.HasMaxAge && r.MaxAge < 0 {
		return needs{}, fmt.Errorf("authretry: a maximum age is negative (RFC 9470 §3)")
	}
	n.scopes = union(nil, r.Scopes)
	if len(r.ACRValues) > 0 {
		n.acr = r.ACRValues[:min(len(r.ACRValues), maxNeedACR)]
	}
	n.maxAge, n.hasMaxAge = r.MaxAge, r.HasMaxAge
	return n, nil
}

// isScope reports whether s is a scope-token (RFC 6749 §3.3).
func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// none reports whether there are none.
func (n *needs) none() bool {
	return len(n.scopes) == 0 && n.claims == "" && !n.needsPerson()
}

// needsPerson reports whether they are about how and when somebody has logged in: no refresh can help.
func (n *needs) needsPerson() bool { return len(n.acr) > 0 || n.hasMaxAge }

// within reports whether whoever meets other meets n, too.
func (n *needs) within(other *needs) bool {
	if n.hasMaxAge && (!other.hasMaxAge || other.maxAge > n.maxAge) || !isSubset(n.acr, other.acr) || !isSubset(n.scopes, other.scopes) {
		return false
	}
	if n.claims == "" || n.claims == other.claims {
		return true
	}
	merged, err := mergeClaims(other.claims, n.claims)
	return err == nil && merged == other.claims
}

// and returns the needs of both.
func (n needs) and(other needs) needs {
	n.scopes = union(n.scopes, other.scopes)
	if merged, err := mergeClaims(n.claims, other.claims); err == nil {
		n.claims = merged
	}
	for _, class := range other.acr {
		if !slices.Contains(n.acr, class) && len(n.acr) < maxNeedACR {
			n.acr = append(slices.Clip(n.acr), class)
		}
	}
	if other.hasMaxAge && (!n.hasMaxAge || other.maxAge < n.maxAge) {
		n.maxAge, n.hasMaxAge = other.maxAge, true
	}
	return n
}

// tooMuch returns an error if they are more than one token is asked to be good for, with what it has already.
func (n *needs) tooMuch(has []string) error {
	all := union(has, n.scopes)
	if len(n.scopes) > 0 && (len(all) > maxNeedScopes || len(strings.Join(all, " ")) > maxScopeBytes) {
		return notGranted(fmt.Sprintf("the server asks for more than %d scopes, or %d bytes of them, in all", maxNeedScopes, maxScopeBytes))
	}
	return nil
}

// union returns the elements of both, sorted, each once. It does not change them.
func union(a, b []string) []string {
	if len(b) == 0 && slices.IsSorted(a) {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

func isSubset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// mergeClaims returns the claims of both in one JSON object (OpenID Connect Core §5.5). Where both say something of the same
// member, the second counts.
func mergeClaims(a, b string) (string, error) {
	if b == "" {
		return a, nil
	}
	if len(b) > maxClaims {
		return "", fmt.Errorf("authretry: claims of %d bytes are asked for, and %d may be", len(b), maxClaims)
	}
	var first, second map[string]any
	if readClaims(b, &second) != nil || second == nil {
		return "", fmt.Errorf("authretry: the claims that are asked for are not a JSON object")
	}
	_ = readClaims(a, &first) // of whatever there is
	merged, err := json.Marshal(mergeObjects(first, second))
	if err != nil || len(merged) > maxClaims {
		return "", fmt.Errorf("authretry: the claims that are asked for are too many")
	}
	return string(merged), nil
}

// readClaims reads a JSON object, and nothing else. Numbers stay as they are.
func readClaims(text string, into *map[string]any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more than one value")
	}
	return nil
}

func mergeObjects(a, b map[string]any) map[string]any {
	if a == nil {
		return b
	}
	for name, value := range b {
		inner, isObject := value.(map[string]any)
		if old, ok := a[name].(map[string]any); ok && isObject {
			a[name] = mergeObjects(old, inner)
		} else {
			a[name] = value
		}
	}
	return a
}

// notGranted is the error of a demand that no token will meet for now.
func notGranted(why string) error {
	return &refusedError{text: why, also: &Rejection{Reason: ReasonInsufficientScope, Err: fmt.Errorf("authretry: %s", why)}}
}
