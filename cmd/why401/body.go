package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
)

// readBody returns the beginning of a response's body as text. http.Transport undoes gzip for which it has asked by itself; here that
// is done for servers that compress unasked, or because of a header given with -H. If it is compressed in a way that is not known,
// there is no body, and unread is the name of that way.
func readBody(resp *http.Response) (body, unread string) {
	sent, _ := io.ReadAll(io.LimitReader(resp.Body, mostBody)) // its beginning will do
	coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	switch coding {
	case "", "identity":
		return string(sent), ""
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(bytes.NewReader(sent))
		if err != nil {
			return string(sent), "" // it only says so
		}
		return beginning(r), ""
	case "deflate":
		r, err := zlib.NewReader(bytes.NewReader(sent)) // as RFC 9110 §8.4.1.2 has it
		if err != nil {
			r = flate.NewReader(bytes.NewReader(sent)) // as some servers do
		}
		return beginning(r), ""
	}
	if len(sent) == 0 {
		return "", ""
	}
	return "", coding
}

// beginning returns what can be read, up to mostBody.
func beginning(r io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(r, mostBody)) // an error at its end is that of what was cut off
	return string(text)
}
