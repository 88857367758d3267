package authtest

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// defaultRealm is the realm of a Guard that has none of its own.
const defaultRealm = "authtest"

// Basic is a [Guard] that asks for a user name and a password (RFC 7617). It accepts the two in base64 with padding
// (RFC 4648 §4), user name and password to the byte, and the word Basic in any case. It refuses all else: other
// alphabets, bits that are left over, no colon.
// Its fields must not be changed once it is in use.
type Basic struct {
	Username, Password string
	Realm              string // "authtest" if empty
	UTF8               bool   // announces charset="UTF-8"; user names and passwords are UTF-8 either way

	password rotating
}

// SetPassword changes the password from now on. As [Server.Protect] does, it panics if the password cannot be one.
func (b *Basic) SetPassword(password string) {
	if problem := passwordProblem(password); problem != "" {
		panic("authtest: Basic.SetPassword: " + problem)
	}
	b.password.set(password)
}

func (b *Basic) attach(*Server) {}

// Format writes the type and the realm, whatever the verb: no secret, and nothing that changes.
func (b *Basic) Format(f fmt.State, _ rune) {
	formatGuard(f, "Basic", orDefault(b.Realm, defaultRealm))
}

// MarshalJSON writes the realm alone.
func (b *Basic) MarshalJSON() ([]byte, error) { return marshalGuard(orDefault(b.Realm, defaultRealm)) }

func (b *Basic) secretHeader() string { return "Authorization" }

func (b *Basic) check(x *exchange) verdict {
	encoded, ok := credentials(x.r.Header.Get("Authorization"), "Basic")
	if !ok {
		return verdict{decision: Challenged}
	}
	refused := verdict{decision: Refused, scheme: "Basic"}
	plain, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		refused.reason = "the credentials are not base64"
		return refused
	}
	username, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		refused.reason = "the credentials have no colon"
		return refused
	}
	if !same(username, b.Username) || !same(password, b.password.get(b.Password)) {
		refused.reason = "wrong user name or password"
		return refused
	}
	return verdict{decision: Accepted, scheme: "Basic"}
}

func (b *Basic) challenges(verdict) []string {
	c := "Basic realm=" + quote(orDefault(b.Realm, defaultRealm))
	if b.UTF8 {
		c += `, charset="UTF-8"`
	}
	return []string{c}
}

// APIKey is a [Guard] that asks for a fixed key in a header. It accepts the key to the byte, after the Prefix and a space
// if there is one, in one line of the header; a Prefix counts in any case. Two lines are refused, even of the same key.
// Its fields must not be changed once it is in use.
type APIKey struct {
	Key    string // required
	Header string // "Authorization" if empty
	Prefix string // the word before the key; "ApiKey" if Prefix and Header are empty
	Realm  string // "authtest" if empty

	key rotating
}

// SetKey changes the key from now on. As [Server.Protect] does, it panics if the key cannot be one.
func (a *APIKey) SetKey(key string) {
	if problem := keyProblem(key); problem != "" {
		panic("authtest: APIKey.SetKey: " + problem)
	}
	a.key.set(key)
}

func (a *APIKey) attach(*Server) {}

// Format writes the type and the realm, whatever the verb: no secret, and nothing that changes.
func (a *APIKey) Format(f fmt.State, _ rune) {
	formatGuard(f, "APIKey", orDefault(a.Realm, defaultRealm))
}

// MarshalJSON writes the realm alone.
func (a *APIKey) MarshalJSON() ([]byte, error) { return marshalGuard(orDefault(a.Realm, defaultRealm)) }

func (a *APIKey) secretHeader() string {
	return http.CanonicalHeaderKey(orDefault(a.Header, "Authorization"))
}

func (a *APIKey) prefix() string {
	if a.Header == "" {
		return orDefault(a.Prefix, "ApiKey")
	}
	return a.Prefix
}

func (a *APIKey) check(x *exchange) verdict {
	key := x.r.Header.Get(a.secretHeader())
	if key == "" {
		return verdict{decision: Challenged}
	}
	if prefix := a.prefix(); prefix != "" {
		var ok bool
		if key, ok = credentials(key, prefix); !ok {
			return verdict{decision: Challenged}
		}
	}
	switch {
	case key == "":
		return verdict{decision: Refused, scheme: orDefault(a.prefix(), "ApiKey"), reason: "the key is missing"}
	case !same(key, a.key.get(a.Key)):
		return verdict{decision: Refused, scheme: orDefault(a.prefix(), "ApiKey"), reason: "wrong key"}
	}
	return verdict{decision: Accepted, scheme: orDefault(a.prefix(), "ApiKey")}
}

func (a *APIKey) challenges(verdict) []string {
	return []string{orDefault(a.prefix(), "ApiKey") + " realm=" + quote(orDefault(a.Realm, defaultRealm))}
}

// A rotating secret takes the place of a configured one once it is set.
type rotating struct {
	mu    sync.Mutex
	isSet bool   // guarded by mu
	value string // guarded by mu
}

func (r *rotating) set(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.isSet = value, true
}

func (r *rotating) get(configured string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isSet {
		return r.value
	}
	return configured
}

func formatGuard(w io.Writer, name, realm string) {
	fmt.Fprintf(w, "authtest.%s(realm %q)", name, realm)
}

func marshalGuard(realm string) ([]byte, error) {
	return json.Marshal(struct{ Realm string }{realm})
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
