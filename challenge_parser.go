package authretry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A ParseError is a place where a WWW-Authenticate or Proxy-Authenticate header does not follow the grammar. It
// holds nothing of the header's text.
type ParseError struct {
	Value   int    // index of the header line in the values given to ParseChallenges
	Offset  int    // in bytes, from the start of that line
	Problem string // such as "unclosed quote"
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("authretry: damaged challenge: %s at offset %d of header line %d", e.Problem, e.Offset, e.Value)
}

// maxParseErrors bounds what a hostile header can make of an error.
const maxParseErrors = 8

// ParseChallenges reads the lines of a WWW-Authenticate or Proxy-Authenticate header, such as
// resp.Header.Values("WWW-Authenticate"), as the one list of challenges that they are (RFC 9110 §5.3, §11.6.1). Values
// are substrings of the lines unless they had to be unescaped. Time and memory are linear in the length of the lines.
//
// Servers do not always follow the grammar. A damaged challenge is read as far as it makes sense, and the error says
// what is wrong with it: a [*ParseError], or several that are joined, of which the first eight are kept. The
// challenges are good to use beside an error, which is there to be told to whoever has to repair the server:
//
//   - A quote inside a quoted-string that is not escaped belongs to the value. The string ends at a quote that is
//     followed by a comma, the end of the line, or the next parameter.
//   - A quoted-string that does not end reaches up to the next challenge or parameter that has a quoted value,
//     otherwise to the end of its line.
//   - A missing comma is taken as read before a parameter, and before a scheme that has one.
//   - A value that lacks its quotes ends at a space, comma or quote.
//   - Control characters other than tabs are read as spaces (RFC 9110 §5.5).
//   - A stray "=" or word is skipped.
//   - Anything else is skipped up to the next comma. Parameters from there on might be another challenge's: they are
//     left out, up to the next scheme.
func ParseChallenges(values []string) ([]Challenge, error) {
	return new(reader).read(values)
}

// Bounds of what anybody looks at of the challenges of a response. A hostile header has room for many more, and each of them
// may be put to a CredentialsFunc and to OnEvent; and a Rejection keeps them for as long as its owner likes.
const (
	maxChallenges      = 64
	maxChallengeParams = 1 << 10   // of all of them
	maxChallengeBytes  = 128 << 10 // of all lines
)

// parseSome is like ParseChallenges, but reads no more than that, and keeps nothing of longer lines alive. A challenge that goes
// on beyond it is left out.
func parseSome(values []string) ([]Challenge, error) {
	r := reader{mostChallenges: maxChallenges, mostParams: maxChallengeParams}
	room := maxChallengeBytes
	for i, v := range values {
		if room -= len(v) + 1; room < 0 {
			lines := slices.Clone(values[:i+1])
			lines[i] = strings.Clone(v[:max(room+len(v), 0)])
			r.cut = true
			return r.read(lines)
		}
	}
	return r.read(values)
}

func (r *reader) read(values []string) ([]Challenge, error) {
	for _, v := range values {
		r.length += len(v)
	}
	switch elements := len(values) + r.length/32; { // schemes and parameters, at a guess
	case r.length == 0 && !r.cut:
		return nil, nil
	case elements == 1: // as in `Basic realm="x"`: what there is of it fits in one piece of memory
		one := new(struct {
			list   [1]Challenge
			params [1]Param
		})
		r.list, r.params = one.list[:0], one.params[:0]
	case elements <= 5: // as in most headers
		few := new(struct {
			list   [3]Challenge
			params [5]Param
		})
		r.list, r.params = few.list[:0], few.params[:0]
	default:
		r.list = make([]Challenge, 0, min(elements, 4))
		r.params = make([]Param, 0, min(elements, 32))
	}
	for i, v := range values {
		r.readLine(i, v)
	}
	r.closeChallenge()
	if r.cut && !r.full {
		r.list = r.list[:max(len(r.list)-1, 0)] // which may go on
		r.damage("", "too long to be read on")
	}
	if len(r.list) == 0 {
		r.list = nil
	}
	return r.list, errors.Join(r.errs...)
}

// A reader puts a list of challenges together.
type reader struct {
	list   []Challenge
	params []Param // of all challenges, one after the other
	errs   []error

	start     int  // index of the last challenge's first parameter
	ownerless bool // whether parameters are left out until the next scheme

	index int    // of the line being read
	line  string // the line

	length int // of all lines
	done   int // how much of it has been read

	mostChallenges, mostParams int  // 0: any number
	full                       bool // there are as many: nothing more is read
	cut                        bool // the last line goes on
}

func (r *reader) readLine(index int, line string) {
	r.index, r.line = index, line
	_, rest := consumeSeparators(line)
	for comma := true; rest != "" && !r.full; {
		if comma {
			if rest = r.readWellFormed(rest); rest == "" {
				return
			}
		}
		before := len(rest)
		rest = r.readElement(rest, comma)
		comma, rest = consumeSeparators(rest)
		r.done += before - len(rest)
	}
}

// readWellFormed reads the elements at the start of s that are as they should be, and returns the rest: at the first
// that is damaged, or has a token68. It is there for speed: readElement would read them all, and to the same effect.
func (r *reader) readWellFormed(s string) (rest string) {
	for s != "" && !r.full {
		scheme := ""
		name, after := consumeToken(s)
		if strings.HasPrefix(after, " ") {
			scheme = name
			name, after = consumeToken(after[1:])
		}
		switch {
		case name == "":
			return s
		case strings.HasPrefix(after, "="):
			if scheme == "" && !r.takesParams() {
				return s
			}
			value, escaped, rest, ok := consumeValue(after[1:])
			if !ok {
				return s
			}
			if escaped {
				value = unescapeParam(value)
			}
			if scheme != "" {
				r.openChallenge(scheme)
			}
			r.addParam(name, value)
			after = rest
		case scheme == "" && (after == "" || after[0] == ','):
			r.openChallenge(name)
		default:
			return s
		}
		_, after = consumeSeparators(after)
		r.done += len(s) - len(after)
		s = after
	}
	return ""
}

// readElement reads a scheme, with its token68 if it has one, or a parameter, and returns the rest of the line. It
// is told whether there was a comma before it.
func (r *reader) readElement(s string, comma bool) (rest string) {
	name, rest := consumeToken(s)
	value, isParam := consumeEquals(rest)
	if isParam && rest[0] != '=' && !beginsValue(value) {
		isParam = false // "Basic =" and "Basic =realm=..." have a scheme and a stray equals sign
	}
	switch {
	case name == "" && s[0] == '=':
		r.damage(s, "stray equals sign")
		return strings.TrimLeft(s, "=")
	case name == "" || !isParam && rest != "" && !isSeparator(rest[0]):
		r.damage(rest, "unexpected character")
		r.ownerless = true
		return skipElement(rest)
	case isParam:
		return r.readParam(s, name, value, comma)
	case !comma && !beginsParam(s):
		r.damage(s, "stray word")
		return rest
	case !comma:
		r.damage(s, "missing comma")
	}
	if r.openChallenge(name); r.full {
		return ""
	}
	if rest = skipSpace(rest); rest == "" || rest[0] == ',' {
		return rest
	}
	r.current().Token68, rest = consumeToken68(rest)
	return rest
}

// readParam reads the parameter at the start of s, of which name and the equals sign have been consumed.
func (r *reader) readParam(s, name, rest string, comma bool) string {
	owned := r.claimParam(s, comma)
	if strings.HasPrefix(rest, "=") {
		if unequal := strings.TrimLeft(rest, "="); strings.HasPrefix(unequal, `"`) {
			r.damage(rest, "stray equals sign")
			rest = unequal
		}
	}
	if strings.HasPrefix(rest, `"`) {
		q, after := consumeQuoted(rest)
		if q.problem != "" {
			r.damage(rest[q.problemAt:], q.problem)
		}
		if owned && q.escaped {
			q.content = unescapeParam(q.content)
		}
		if owned {
			r.addParam(name, q.content)
		}
		return after
	}

	value, after := consumeUnquoted(rest)
	if value == "" {
		r.damage(rest, "missing value")
	} else if !isToken(value) {
		r.damage(rest, "value without quotes")
	}
	if owned {
		r.addParam(name, value)
	}
	return after
}

// takesParams reports whether a parameter that comes next belongs to the current challenge, and there is nothing to say
// of it.
func (r *reader) takesParams() bool {
	return len(r.list) > 0 && !r.ownerless && r.current().Token68 == ""
}

// claimParam reports whether the parameter at the start of s belongs to the current challenge.
func (r *reader) claimParam(s string, comma bool) bool {
	switch {
	case r.ownerless:
		return false
	case len(r.list) == 0:
		r.damage(s, "parameter without a scheme")
		r.ownerless = true
		return false
	case r.current().Token68 != "":
		// "Digest realm=, nonce=..." has begun like a token68. Otherwise there is no making sense of the two together.
		empty, ok := strings.CutSuffix(r.current().Token68, "=")
		if !ok || !isToken(empty) {
			r.damage(s, "parameter after a token68")
			r.ownerless = true
			return false
		}
		r.damage(s, "missing value before this parameter")
		r.current().Token68 = ""
		r.addParam(empty, "")
	case !comma && len(r.params) > r.start:
		r.damage(s, "missing comma")
	}
	return true
}

func (r *reader) addParam(name, value string) {
	if r.full = r.full || r.mostParams > 0 && len(r.params) >= r.mostParams; r.full {
		return
	}
	if len(r.params) == cap(r.params) {
		r.params = makeRoom(r, r.params)
	}
	r.params = append(r.params, Param{name, value})
}

func (r *reader) openChallenge(scheme string) {
	if r.full = r.full || r.mostChallenges > 0 && len(r.list) >= r.mostChallenges; r.full {
		return
	}
	r.closeChallenge()
	if len(r.list) == cap(r.list) {
		r.list = makeRoom(r, r.list)
	}
	r.list = r.list[:len(r.list)+1] // zero as yet
	r.current().Scheme = scheme
	r.start, r.ownerless = len(r.params), false
}

func (r *reader) closeChallenge() {
	if n := len(r.params); n > r.start {
		r.current().Params = r.params[r.start:n:n]
	}
}

// current returns the challenge that parameters are added to, the last one. Without any, it panics.
func (r *reader) current() *Challenge { return &r.list[len(r.list)-1] }

// makeRoom returns list with room for as many more elements as there will be if the header goes on as it began, and
// an eighth, within reason. To let append double it again and again would take several times the result's memory.
func makeRoom[T any](r *reader, list []T) []T {
	n := len(list)
	more := min(64*n, int(int64(n)*int64(r.length-r.done)/int64(r.done+1)))
	return append(make([]T, 0, n+more+max(n, more)/8+1), list...)
}

// damage notes what is wrong where rest begins.
func (r *reader) damage(rest, problem string) {
	if len(r.errs) < maxParseErrors {
		r.errs = append(r.errs, &ParseError{Value: r.index, Offset: len(r.line) - len(rest), Problem: problem})
	}
}
