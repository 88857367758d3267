package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompressedBody reads what servers compress, whether they were asked to or not.
func TestCompressedBody(t *testing.T) {
	const said = "{\"message\":\"Missing x-api-key header\"}"
	compressed := func(to func(io.Writer) io.WriteCloser, text string) string {
		var b bytes.Buffer
		w := to(&b)
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	gzipped := compressed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, said)
	zlibbed := compressed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }, said)
	flated := compressed(func(w io.Writer) io.WriteCloser { raw, _ := flate.NewWriter(w, 9); return raw }, said)
	for name, c := range map[string]struct{ coding, body, want string }{
		"deflate":             {"deflate", zlibbed, "X-API-Key"},
		"deflate, raw":        {"deflate", flated, "X-API-Key"},
		"gzip":                {"gzip", gzipped, "X-API-Key"},
		"gzip, old name":      {"X-GZip", gzipped, "X-API-Key"},
		"none":                {"identity", said, "X-API-Key"},
		"gzip in name only":   {"gzip", said, "X-API-Key"},
		"deflate in pieces":   {"deflate", zlibbed[:len(zlibbed)-4], "X-API-Key"},
		"deflate that is not": {"deflate", "\xff\xfe", "no WWW-Authenticate"},
		"gzip without a name": {"", gzipped, "X-API-Key"},
		"gzip by another":     {"br", gzipped, "(“br”). It was read nevertheless"},
		"gzip twice":          {"gzip", compressed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, gzipped), "X-API-Key"},
		"none by a name":      {"br", said, "X-API-Key"},
		"UTF-16":              {"", "\xff\xfe" + strings.Join(strings.Split(said, ""), "\x00") + "\x00", "X-API-Key"},
		"UTF-16 without mark": {"", "\x00" + strings.Join(strings.Split(said, ""), "\x00"), "X-API-Key"},
		"unknown":             {"br", "\x0b\x02\x80", "The answer's body is compressed in a way that cannot be undone here (Content-Encoding “br”)."},
		"unknown and empty":   {"br", "", "no WWW-Authenticate"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "Content-Type: application/json\nContent-Encoding: "+c.coding+"\n\n"+c.body)})
			for _, args := range [][]string{nil, {"-H", "Accept-Encoding: gzip, deflate, br"}} {
				out, status := w.run(append(args, "https://api.example.com/"), "", true)
				require.Equal(t, exitRefused, status, out)
				require.Contains(t, strings.Join(strings.Fields(out), " "), c.want)
				require.NotContains(t, out, `\x`)
			}
		})
	}

	bomb := compressed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, strings.Repeat("a", 10*mostBody))
	text, _, _ := readBody(&http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(strings.NewReader(bomb))})
	require.Len(t, text, mostBody)
}
