package schemetest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"

	"github.com/authretry/authretry"
)

// checkText reports if a text shows a secret.
func (k *check) checkText(c clause, where, text string) {
	if k.showsAny(text) {
		k.broken(c, "%s shows a secret", where)
	}
}

func (k *check) showsAny(text string) bool {
	return slices.ContainsFunc(k.Secrets, func(secret string) bool { return shows(text, secret) })
}

// verbs are those of package fmt that write what a value holds.
var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"}

// checkValue reports if what package fmt makes of a value shows a secret.
func (k *check) checkValue(where string, v any) {
	for _, verb := range verbs {
		if k.showsAny(fmt.Sprintf(verb, v)) {
			k.broken(clauseSecret, "%s shows a secret when it is printed with %s", where, verb)
			return
		}
	}
}

// checkEvent is the Transport's OnEvent.
func (t *trial) checkEvent(_ context.Context, e authretry.Event) {
	t.checkText(clauseSecret, "an Event", fmt.Sprintf("%+v", e))
}

// checkPrinted looks at what is printed of the Scheme and its Sessions. It is called when nobody uses them any more.
func (t *trial) checkPrinted() {
	if len(t.Secrets) == 0 {
		return
	}
	t.checkValue("the Scheme", t.scheme)
	t.checkJSON("the Scheme", t.scheme)
	for _, s := range t.sessions {
		t.checkValue("a Session", s)
		t.checkJSON("a Session", s)
	}
}

func (k *check) checkJSON(where string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte(err.Error())
	}
	k.checkText(clauseSecret, where+" in JSON", string(text))
}

// checkWire reports a secret in a request of a Scheme that says it sends none.
func (t *trial) checkWire(r *http.Request) {
	if safe, ok := t.scheme.(authretry.PlaintextSafe); !ok || !safe.PlaintextSafe() || len(t.Secrets) == 0 {
		return
	}
	if dump, err := httputil.DumpRequest(r, true); err == nil {
		t.checkText(clausePlaintext, "a request", string(dump))
	}
}

// shows reports whether a text has the secret in it, plain or in one of the usual forms.
func shows(text, secret string) bool {
	if strings.Contains(text, secret) {
		return true
	}
	if plain, err := url.QueryUnescape(text); err == nil && strings.Contains(plain, secret) {
		return true
	}
	for word := range strings.FieldsFuncSeq(text, isNotBase64) {
		if base64.RawStdEncoding.DecodedLen(len(word)) < len(secret) { // too short for it in hex as well
			continue
		}
		for _, decode := range []func(string) ([]byte, error){
			base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString,
		} {
			if plain, err := decode(word); err == nil && strings.Contains(string(plain), secret) {
				return true
			}
		}
	}
	return false
}

// isNotBase64 reports whether r is in no alphabet of base64 (RFC 4648), padding included.
func isNotBase64(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_", r))
}
