package authtest

import (
	"errors"
	"strings"
)

// A param is one auth-param of credentials, as it was written.
type param struct {
	name   string
	value  string // unquoted and unescaped
	quoted bool
}

// errParams is the one thing to say about credentials that are not a list of auth-params.
var errParams = errors.New("the credentials are not a list of name=value")

// parseAuthParams reads the auth-params of credentials strictly (RFC 9110 §11.2): a client writes what the RFC says.
func parseAuthParams(s string) ([]param, error) {
	var params []param
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return params, nil
		}
		name, rest := cutToken(s)
		rest, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
		if name == "" || !ok {
			return nil, errParams
		}
		p := param{name: name}
		rest = strings.TrimLeft(rest, " \t")
		if strings.HasPrefix(rest, `"`) {
			p.quoted = true
			if p.value, rest, ok = cutQuoted(rest); !ok {
				return nil, errParams
			}
		} else if p.value, rest = cutToken(rest); p.value == "" {
			return nil, errParams
		}
		params = append(params, p)
		s = strings.TrimLeft(rest, " \t")
		if s != "" && s[0] != ',' {
			return nil, errParams
		}
	}
}

// cutToken splits s after the token it begins with (RFC 9110 §5.6.2), which may be empty.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && s[i] > ' ' && s[i] < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(s[i])) {
		i++
	}
	return s[:i], s[i:]
}

// cutQuoted splits s after the quoted-string it begins with (RFC 9110 §5.6.4).
func cutQuoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// quote writes s as a quoted-string.
func quote(s string) string {
	return `"` + quoted.Replace(s) + `"`
}

// credentials returns what follows the scheme in a header's value, which may be nothing. The scheme is compared
// without case.
func credentials(value, scheme string) (string, bool) {
	word, rest, _ := strings.Cut(value, " ")
	return strings.TrimLeft(rest, " "), strings.EqualFold(word, scheme)
}

// A bounded is a map that forgets its oldest keys, so that a server under load does not grow for ever.
type bounded[V any] struct {
	values map[string]V
	order  []string // a ring once it is full
	oldest int
}

// maxRemembered is how many nonces, or tokens of one kind that have ended, a Guard remembers.
const maxRemembered = 1 << 16

func (b *bounded[V]) get(key string) (V, bool) {
	v, ok := b.values[key]
	return v, ok
}

// put adds a key that is not there yet.
func (b *bounded[V]) put(key string, v V) {
	if b.values == nil {
		b.values = map[string]V{}
	}
	if len(b.order) < maxRemembered {
		b.order = append(b.order, key)
	} else {
		delete(b.values, b.order[b.oldest])
		b.order[b.oldest] = key
		b.oldest = (b.oldest + 1) % maxRemembered
	}
	b.values[key] = v
}
