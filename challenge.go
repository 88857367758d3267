package authretry

// A Challenge is one element of a WWW-Authenticate or Proxy-Authenticate header: an auth-scheme followed by either
// a token68 or parameters (RFC 9110 §11.3).
type Challenge struct {
	Scheme  string // as sent; compared without case
	Token68 string // such as Negotiate's data, with its padding; empty if there are parameters
	Params  Params // nil if there are none
}

// String returns c as a server sends it, so that [ParseChallenges] reads the same again. Values are quoted, but for
// Digest's algorithm and stale, which must not be (RFC 7616 §3.3). Control characters, which no challenge returned by
// ParseChallenges has and no header can carry, become spaces.
func (c Challenge) String() string {
	b := []byte(c.Scheme)
	if c.Token68 != "" {
		b = append(append(b, ' '), c.Token68...)
	} else {
		separator := " "
		for _, p := range c.Params {
			b = append(append(append(b, separator...), p.Name...), '=')
			if neverQuoted(p.Name) && isToken(p.Value) {
				b = append(b, p.Value...)
			} else {
				b = append(append(append(b, '"'), escapeQuoted(p.Value)...), '"')
			}
			separator = ", "
		}
	}
	for i := range b {
		if classes[b[i]]&control != 0 {
			b[i] = ' '
		}
	}
	return string(b)
}

func neverQuoted(name string) bool {
	return equalFoldASCII(name, "algorithm") || equalFoldASCII(name, "stale")
}

// Params are the auth-params of a [Challenge], in the order sent (RFC 9110 §11.2). A name that was sent more than
// once is there more than once; the first counts.
type Params []Param

// A Param is one auth-param.
type Param struct {
	Name  string // as sent; compared without case
	Value string // unquoted and unescaped
}

// Get returns the value of the first parameter called name, compared without (ASCII) case, or "".
func (p Params) Get(name string) string {
	value, _ := p.Lookup(name)
	return value
}

// Lookup is like Get, and reports whether there is such a parameter.
func (p Params) Lookup(name string) (value string, ok bool) {
	for i := range p {
		if equalFoldASCII(p[i].Name, name) {
			return p[i].Value, true
		}
	}
	return "", false
}

// equalFoldASCII reports whether a and b are the same but for the case of ASCII letters.
func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if 'A' <= y && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
