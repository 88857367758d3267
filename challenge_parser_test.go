package authretry

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// A challengeCase is an element of the files in testdata/challenges.
type challengeCase struct {
	Name       string   `json:"name"`
	Why        string   `json:"why"`    // the section of the RFC, or the server that sends it
	Latin1     bool     `json:"latin1"` // in headers and params, U+0080 to U+00FF stand for single bytes
	Headers    []string `json:"headers"`
	Challenges []struct {
		Scheme  string      `json:"scheme"`
		Token68 string      `json:"token68"`
		Params  [][2]string `json:"params"`
	} `json:"challenges"`
	Errors []struct {
		Value  int `json:"value"`
		Offset int `json:"offset"`
	} `json:"errors"`
}

// text returns s as the bytes that it stands for.
func (c *challengeCase) text(s string) string {
	if !c.Latin1 {
		return s
	}
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

func (c *challengeCase) lines() (lines []string) {
	for _, h := range c.Headers {
		lines = append(lines, c.text(h))
	}
	return lines
}

func (c *challengeCase) want() (list []Challenge) {
	for _, w := range c.Challenges {
		challenge := Challenge{Scheme: w.Scheme, Token68: w.Token68}
		for _, p := range w.Params {
			challenge.Params = append(challenge.Params, Param{p[0], c.text(p[1])})
		}
		list = append(list, challenge)
	}
	return list
}

func challengeCases(t testing.TB) map[string]challengeCase {
	files, err := filepath.Glob("testdata/challenges/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	cases := map[string]challengeCase{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var list []challengeCase
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(&list), file)
		for _, c := range list {
			name := strings.TrimSuffix(filepath.Base(file), ".json") + "/" + c.Name
			require.NotContains(t, cases, name)
			require.NotEmpty(t, c.Why, name)
			cases[name] = c
		}
	}
	return cases
}

func TestParseChallenges(t *testing.T) {
	cases := challengeCases(t)
	require.GreaterOrEqual(t, len(cases), 60)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseChallenges(c.lines())
			require.Equal(t, c.want(), got)

			damage := parseErrors(err)
			for i, e := range damage {
				t.Log(e)
				require.Less(t, i, len(c.Errors), "one error too many")
				require.Equal(t, c.Errors[i].Value, e.Value)
				require.Equal(t, c.Errors[i].Offset, e.Offset)
			}
			require.Len(t, damage, len(c.Errors))
			requireRereadable(t, got)
		})
	}
}

// parseErrors returns the errors that are joined in err.
func parseErrors(err error) (list []*ParseError) {
	switch e := err.(type) {
	case nil:
	case *ParseError:
		list = append(list, e)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			list = append(list, parseErrors(err)...)
		}
	default:
		panic(fmt.Sprintf("not a ParseError: %v", err))
	}
	return list
}

// requireRereadable checks that a list is the same after it has been written and read again, in one line or in one
// line each.
func requireRereadable(t *testing.T, list []Challenge) {
	var lines []string
	for _, c := range list {
		lines = append(lines, c.String())
	}
	for _, lines := range [][]string{lines, {strings.Join(lines, ", ")}} {
		again, err := ParseChallenges(lines)
		require.NoError(t, err, "%q", lines)
		require.Equal(t, list, again, "%q", lines)
	}
}

func TestParseErrorsAreBoundedAndQuoteNothing(t *testing.T) {
	_, err := ParseChallenges([]string{strings.Repeat("secret@, ", 100_000)})
	require.Len(t, parseErrors(err), 8)
	require.NotContains(t, err.Error(), "secret")

	var first *ParseError
	require.True(t, errors.As(err, &first))
	require.Equal(t, &ParseError{Value: 0, Offset: 6, Problem: "unexpected character"}, first)
	require.EqualError(t, first, "authretry: damaged challenge: unexpected character at offset 6 of header line 0")

	list, _ := ParseChallenges([]string{`Basic realm="a" = b"`})
	require.Equal(t, `a" = b`, list[0].Params.Get("realm"), "an equals sign begins no parameter")
	for line, problem := range map[string]string{`Digest realm="x", nonce=, qop=auth`: "missing value", `Digest realm="x", nonce=a/b`: "value without quotes"} {
		_, err := ParseChallenges([]string{line})
		require.ErrorContains(t, err, problem)
	}
}

func TestChallengeString(t *testing.T) {
	for _, c := range []struct {
		want      string
		challenge Challenge
	}{
		{`NTLM`, Challenge{Scheme: "NTLM"}},
		{`Negotiate YII=`, Challenge{Scheme: "Negotiate", Token68: "YII="}},
		{`Basic realm="a \"b\" \\ c"`, Challenge{Scheme: "Basic", Params: Params{{"realm", `a "b" \ c`}}}},
		{`Digest realm="r", algorithm=MD5, stale=true, qop="auth"`,
			Challenge{Scheme: "Digest", Params: Params{{"realm", "r"}, {"algorithm", "MD5"}, {"stale", "true"}, {"qop", "auth"}}}},
		{`Digest Algorithm="not a token", stale=""`,
			Challenge{Scheme: "Digest", Params: Params{{"Algorithm", "not a token"}, {"stale", ""}}}},
		{"Basic realm=\"a\tb  Set-Cookie: c \"", Challenge{Scheme: "Basic", Params: Params{{"realm", "a\tb\r\nSet-Cookie: c\x00"}}}},
	} {
		require.Equal(t, c.want, c.challenge.String())
	}
}

func TestParamsCompareASCIICaseOnly(t *testing.T) {
	params := Params{{"Realm", "first"}, {"REALM", "second"}, {"ſtale", "long s"}, {"Kelvin", "K"}}
	require.Equal(t, "first", params.Get("realm"))
	_, ok := params.Lookup("stale")
	require.False(t, ok)
	_, ok = params.Lookup("\u212aelvin")
	require.False(t, ok)
	require.Equal(t, "K", params.Get("kELVIN"))
}

// Appending to the Params of one challenge must not reach into the next one's.
func TestParamsDoNotOverlap(t *testing.T) {
	list, err := ParseChallenges([]string{`A a=1, B b=2`})
	require.NoError(t, err)
	_ = append(list[0].Params, Param{"c", "3"})
	require.Equal(t, Params{{"b", "2"}}, list[1].Params)
}

// typical are header lines of everyday length, with the allocations that reading one may make: for the list, for the
// parameters of all challenges, and for what had to be unescaped.
var typical = []struct {
	name   string
	line   string
	allocs float64
}{
	{"Basic", `Basic realm="x"`, 1},
	{"TwoDigests", `Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, ` +
		`nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", ` +
		`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, ` +
		`nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`, 2},
	{"Registry", `Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`, 1},
	{"MixedEscapes", `Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple \\ plain"`, 3},
}

// hostile are headers of 64 KiB.
var hostile = []struct {
	name string
	line string
}{
	{"Commas", repeat("Basic ", ",")},
	{"Quotes", repeat("Basic realm=", `"`)},
	{"Unclosed", repeat("", `Basic realm="x, `)},
	{"Params", repeat("Digest ", "a=b,")},
	{"Escapes", repeat(`Basic realm="`, `\"`)},
	{"Challenges", repeat("", `Basic realm="x", `)},
	{"All", repeat("", `Basic realm="a\"b", Digest n=b,, c="d "e" f", g="h, Negotiate YII=,= @,"`)},
	{"Equals", repeat("Basic ", "=")},
	{"Words", repeat("", "abc ")},
	{"InnerQuotes", repeat(`Basic realm="`, `, a"`)},
	{"ShortEscapes", repeat("Basic ", `a="\a",`)},
	{"Controls", repeat("Basic realm=\"", "\x01")},
}

func repeat(prefix, s string) string {
	const size = 64 << 10
	return (prefix + strings.Repeat(s, size/len(s)+1))[:size]
}

func TestParseAllocations(t *testing.T) {
	for _, c := range typical {
		values := []string{c.line}
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = ParseChallenges(values) }), c.allocs, c.name)
	}
}

func TestHostileHeadersTakeUnderOneMiB(t *testing.T) {
	for _, c := range hostile {
		values := []string{c.line}
		least := uint64(1 << 62) // of three: other goroutines may allocate too
		for range 3 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = ParseChallenges(values)
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		require.Less(t, least, uint64(1<<20), c.name)
	}
}

// A quadratic parser takes 256 times as long for 16 times the input.
// What is read in linear time is done soon; with quadratic work, two megabytes would take hours.
func TestHostileHeadersTakeLinearTime(t *testing.T) {
	for _, c := range hostile {
		_, _ = ParseChallenges([]string{strings.Repeat(c.line, thorough.Or(2<<20, 512<<10)/len(c.line))})
	}
}

func TestParseHugeHeaders(t *testing.T) {
	list, err := ParseChallenges([]string{`Basic realm="` + strings.Repeat("x", 10<<20) + `"`})
	require.NoError(t, err)
	require.Len(t, list[0].Params.Get("realm"), 10<<20)

	list, err = ParseChallenges([]string{strings.Repeat(`Basic realm="x", `, 100_000)})
	require.NoError(t, err)
	require.Len(t, list, 100_000)
	require.Equal(t, Params{{"realm", "x"}}, list[99_999].Params)

	lines := make([]string, 100_000)
	for i := range lines {
		lines[i] = `Basic realm="\x`
	}
	list, err = ParseChallenges(lines)
	require.Len(t, parseErrors(err), 8)
	require.Len(t, list, 100_000)
}

// parseByElements is ParseChallenges without readWellFormed, which must make no difference.
func parseByElements(values []string) ([]Challenge, error) {
	var r reader
	for i, v := range values {
		r.index, r.line = i, v
		_, rest := consumeSeparators(v)
		for comma := true; rest != ""; {
			rest = r.readElement(rest, comma)
			comma, rest = consumeSeparators(rest)
		}
	}
	r.closeChallenge()
	return r.list, errors.Join(r.errs...)
}

func FuzzParseChallenges(f *testing.F) {
	for _, c := range challengeCases(f) {
		f.Add(strings.Join(c.lines(), "\n"))
	}
	for _, c := range hostile {
		f.Add(c.line[:200])
	}
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		list, err := ParseChallenges(lines)

		read := 0
		for _, c := range list {
			require.NotEmpty(t, c.Scheme)
			require.True(t, c.Token68 == "" || c.Params == nil)
			read += len(c.Scheme) + len(c.Token68)
			for _, p := range c.Params {
				read += len(p.Name) + len(p.Value)
			}
		}
		require.LessOrEqual(t, read, len(header))

		for _, e := range parseErrors(err) {
			require.Less(t, e.Value, len(lines))
			require.GreaterOrEqual(t, e.Offset, 0)
			require.LessOrEqual(t, e.Offset, len(lines[e.Value]))
		}
		requireRereadable(t, list)

		careful, carefulErr := parseByElements(lines)
		require.Equal(t, careful, list)
		require.Equal(t, parseErrors(carefulErr), parseErrors(err))

		// Whatever is wrong stays within its line.
		more, _ := ParseChallenges(append(lines, `Basic realm="ok"`))
		require.Equal(t, append(list, Challenge{Scheme: "Basic", Params: Params{{"realm", "ok"}}}), more)
	})
}

func BenchmarkParseChallenges(b *testing.B) {
	for _, c := range typical {
		b.Run(c.name, func(b *testing.B) { benchmarkParse(b, c.line) })
	}
	for _, c := range hostile {
		b.Run(c.name, func(b *testing.B) { benchmarkParse(b, c.line) })
	}
}

// benchmarkParse times ParseChallenges beside scan, the bound, in turns: "ns/op" is ours, "scan-ns" is scan's, "ratio"
// the one by the other; all are medians.
func benchmarkParse(b *testing.B, line string) {
	values := []string{line}
	repeat := 1 + 100_000/len(line)
	var ours, bound, ratio []float64
	for b.Loop() {
		start := time.Now()
		for range repeat {
			sink, _ = ParseChallenges(values)
		}
		o := float64(time.Since(start)) / float64(repeat)
		start = time.Now()
		for range repeat {
			sink = scan(line)
		}
		s := float64(time.Since(start)) / float64(repeat)
		ours, bound, ratio = append(ours, o), append(bound, s), append(ratio, o/s)
	}
	b.ReportMetric(median(ours), "ns/op")
	b.ReportMetric(median(bound), "scan-ns")
	b.ReportMetric(median(ratio), "ratio")
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

var sink []Challenge

// scan is the cheapest parser imaginable: one pass over the bytes, right for well-formed lines without token68 only.
func scan(line string) (list []Challenge) {
	word, quote, escaped := 0, -1, false
	var name, value string
	flush := func(end int) {
		if name != "" {
			if quote < 0 {
				value = line[word:end]
			}
			c := &list[len(list)-1]
			c.Params = append(c.Params, Param{name, value})
		}
		name, value, quote = "", "", -1
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '"':
			quote, escaped = i+1, false
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' {
					escaped = true
					i++
				}
			}
			if value = line[quote:min(i, len(line))]; escaped {
				value = strings.ReplaceAll(value, `\`, "")
			}
		case '=':
			if len(list) > 0 {
				name = line[word:i]
			}
			word = i + 1
		case ' ':
			if word < i && name == "" {
				list = append(list, Challenge{Scheme: line[word:i]})
			}
			word = i + 1
		case ',':
			flush(i)
			word = i + 1
		}
	}
	flush(len(line))
	return list
}

// A header that is longer than anybody reads is not taken for one that says nothing.
func TestHeaderThatIsTooLongSaysSo(t *testing.T) {
	list, err := parseSome([]string{`Basic realm="x"`, `Digest realm="` + strings.Repeat("x", 200_000) + `"`})
	require.Len(t, list, 1)
	require.ErrorContains(t, err, "too long to be read on")
	list, err = parseSome([]string{`Negotiate ` + strings.Repeat("x", 200_000)})
	require.Nil(t, list)
	require.ErrorContains(t, err, "too long to be read on")
	list, err = parseSome([]string{"Digest " + strings.Repeat("a=b, ", maxChallengeParams+10)})
	require.NoError(t, err)
	require.Len(t, list[0].Params, maxChallengeParams)
}

// What comes after as many challenges as anybody looks at is not read, and changes nothing of those.
func TestChallengesAreBounded(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("S%d dG9rZW4%d", i, i))
	}
	for _, values := range [][]string{lines, {strings.Join(lines, ", ")}} {
		list, err := parseSome(values)
		require.NoError(t, err)
		require.Len(t, list, 64)
		require.Equal(t, Challenge{Scheme: "S63", Token68: "dG9rZW463"}, list[63])
	}
	list, err := parseSome([]string{strings.Repeat("A a=b, ", 64) + "Z z=z"})
	require.NoError(t, err)
	require.Len(t, list, 64)
	require.Equal(t, "A", list[63].Scheme)
}
