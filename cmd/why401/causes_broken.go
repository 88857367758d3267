package main

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/authretry/authretry"
)

// What there is to be said of challenges that are not as they should be.

// brokenDigest is for a challenge of Digest that nobody can answer.
func (in *inquiry) brokenDigest() *cause {
	if !in.is401() || len(in.report.Challenges) == 0 {
		return nil
	}
	for _, c := range in.report.Challenges {
		if !strings.EqualFold(c.Scheme, "Digest") || c.raw.Params.Get("nonce") != "" {
			return nil
		}
	}
	return &cause{"broken-digest", certain, "The challenge is broken: Digest needs a nonce, and there is none. It is part of the hash (RFC 7616 §3.3), so no client can answer.",
		"Have the server repaired. A proxy in between may have cut the header, too."}
}

// unsupported is for a challenge of a scheme for which there are credentials, with something in it that authretry does not know.
func (in *inquiry) unsupported() *cause {
	what := "something that authretry does not know"
	if c := in.has("Digest"); c != nil {
		algorithm, qop := c.Params.Get("algorithm"), c.Params.Get("qop")
		isKnown := slices.ContainsFunc(params, func(p paramWords) bool { return p.name == "algorithm" && p.values[strings.ToLower(algorithm)] != "" })
		switch {
		case algorithm != "" && !isKnown:
			what = "the algorithm " + in.clean.text(algorithm, 20) + ", which is not known"
		case qop != "" && !slices.ContainsFunc(strings.Split(strings.ToLower(qop), ","), func(q string) bool { q = strings.TrimSpace(q); return q == "auth" || q == "auth-int" }):
			what = "the qop " + in.clean.text(qop, 20) + ", which is not known"
		}
	}
	return &cause{"unsupported-challenge", certain, "The challenge has " + what + ". The credentials are of the right kind, and nothing was sent. It says below what it is.",
		"Let the server offer what is common as well. That is Digest with MD5 or SHA-256 and qop=auth, or Basic over https."}
}

// misspelt is for a scheme whose name is wrong by a letter, so that no client knows it.
func (in *inquiry) misspelt() *cause {
	if !in.is401() {
		return nil
	}
	for _, c := range in.report.Challenges {
		for _, name := range []string{"Basic", "Digest", "Bearer", "Negotiate"} {
			if !c.Known && isNearly(strings.ToLower(c.raw.Scheme), strings.ToLower(name)) {
				return &cause{"misspelt-scheme", certain, "The server asks for " + c.Scheme + ", and means " + name + " probably. No client knows a scheme of that name, so none answers it, and a browser does not ask for a password.",
					"Have the server repaired. Until then, send " + name + " ahead: -ahead for Basic, -H for others."}
			}
		}
	}
	return nil
}

// isNearly reports whether a and b are the same but for one letter, or for two letters that have changed places.
func isNearly(a, b string) bool {
	same, end := 0, 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	for end < min(len(a), len(b))-same && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	x, y := a[same:len(a)-end], b[same:len(b)-end]
	return a != b && (max(len(x), len(y)) <= 1 || len(x) == 2 && len(y) == 2 && x[0] == y[1] && x[1] == y[0])
}

// preflight is for the request that browsers send before others (Fetch §3.2.2), which never has credentials.
func (in *inquiry) preflight() *cause {
	if !in.refused() || !in.isPreflight() || in.gave() || in.disguise != nil || in.sign() != nil {
		return nil
	}
	return &cause{"cors-preflight", certain, "This is a CORS preflight, which browsers send without credentials. The server wants some for it, so no browser gets any further.",
		"Let OPTIONS through without credentials. Whatever answers CORS must come before what looks at credentials."}
}

func (in *inquiry) isPreflight() bool {
	return in.method == http.MethodOptions && in.header.Get("Origin") != "" && in.header.Get("Access-Control-Request-Method") != ""
}

// repaired reads a challenge that a server has written with other marks than it must: 'single quotes', or semicolons between parameters.
// Damage is what is wrong with it; "" if it has none of the two, and for more than one line.
func repaired(values []string) (c authretry.Challenge, damage string) {
	if len(values) != 1 || len(values[0]) > mostField {
		return c, ""
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	if _, known := schemeNamed(scheme); !known {
		return c, ""
	}
	switch outside := withoutQuoted(rest); {
	case strings.Contains(outside, "='"):
		damage = "there are single quotes around values, and only double ones are quotes (RFC 9110 §5.6.4)"
	case hasSemicolon(outside):
		damage = "there are semicolons between parameters, where commas must be (RFC 9110 §11.2)"
	}
	return authretry.Challenge{Scheme: scheme, Params: lenient(rest)}, damage
}

// withoutQuoted leaves out what is in double quotes.
func withoutQuoted(s string) string {
	var b strings.Builder
	for {
		before, _, ok := strings.Cut(s, `"`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		v, _ := quotedAt(s, len(before))
		s = s[min(v.to+1, len(s)):]
	}
}

// hasSemicolon reports whether a semicolon and a parameter follow another one.
func hasSemicolon(s string) bool {
	for at := 0; ; at++ {
		i := strings.IndexByte(s[at:], ';')
		if i < 0 {
			return false
		}
		at += i
		if name, _, ok := strings.Cut(s[at+1:], "="); ok && isName(strings.TrimSpace(name)) && strings.Contains(s[:at], "=") {
			return true
		}
	}
}

// lenient reads parameters in whatever quotes, with commas or semicolons between them.
func lenient(s string) (list authretry.Params) {
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if name = strings.Trim(name, " \t,;"); !ok {
			return list
		}
		rest = strings.TrimLeft(rest, " ")
		value, after := "", ""
		switch {
		case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, "'"):
			value, after, _ = strings.Cut(rest[1:], rest[:1])
		default:
			end := strings.IndexFunc(rest, func(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) })
			if end < 0 {
				end = len(rest)
			}
			value, after = rest[:end], rest[end:]
		}
		list, s = append(list, authretry.Param{Name: name, Value: value}), after
	}
	return list
}
