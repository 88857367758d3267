package main

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// readBody returns the beginning of a response's body as text, whatever its Content-Encoding says: servers compress unasked, say that they
// have and have not, or do so twice. http.Transport undoes none of it here. If it is compressed in a way that is not
// known, there is no body, and unread is the name of that way. Odd is the Content-Encoding, if it is not that of the body.
func readBody(resp *http.Response) (body, unread, odd string) {
	sent, _ := io.ReadAll(io.LimitReader(resp.Body, mostBody)) // its beginning will do
	coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	text, did := string(sent), ""
	for range 2 {
		if plain, ok := gunzip(text); ok {
			text, did = plain, strings.TrimPrefix(did+", gzip", ", ")
		}
	}
	if did == "" && coding == "deflate" {
		if plain, ok := inflate(text); ok {
			text, did = plain, coding
		}
	}
	names := strings.ReplaceAll(strings.ReplaceAll(coding, "x-gzip", "gzip"), "identity", "")
	if did == "" && names != "" && !utf8.ValidString(text) {
		return "", coding, ""
	}
	if did != names && text != "" {
		if odd = coding; odd == "" {
			odd = "none"
		}
	} else if did != "" {
		resp.Header.Del("Content-Encoding") // as http.Transport does, which has said nothing of it either
	}
	return fromUTF16(text), "", odd
}

// gunzip undoes gzip, which has a number at its beginning.
func gunzip(s string) (string, bool) {
	if !strings.HasPrefix(s, "\x1f\x8b") {
		return s, false
	}
	r, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		return s, false
	}
	return beginning(r), true
}

// inflate undoes deflate.
func inflate(s string) (string, bool) {
	if r, err := zlib.NewReader(strings.NewReader(s)); err == nil { // as RFC 9110 §8.4.1.2 has it
		return beginning(r), true
	}
	text := beginning(flate.NewReader(strings.NewReader(s))) // as some servers do
	return text, text != "" || !utf8.ValidString(s)
}

// fromUTF16 returns as UTF-8 what begins with a byte order mark of UTF-16, or is ASCII with a zero beside each character.
func fromUTF16(s string) string {
	order := binary.ByteOrder(binary.LittleEndian)
	switch {
	case len(s) < 4:
		return s
	case strings.HasPrefix(s, "\xff\xfe"), s[1] == 0 && s[3] == 0 && s[0] != 0:
	case strings.HasPrefix(s, "\xfe\xff"), s[0] == 0 && s[2] == 0 && s[1] != 0:
		order = binary.BigEndian
	default:
		return s
	}
	units := make([]uint16, len(s)/2)
	for i := range units {
		units[i] = order.Uint16([]byte(s[2*i : 2*i+2]))
	}
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

// beginning returns what can be read, up to mostBody.
func beginning(r io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(r, mostBody)) // an error at its end is that of what was cut off
	return string(text)
}
