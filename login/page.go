package login

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
)

// The last page, which has all that it needs in itself. It says nothing that came over the network.
const (
	pageStyle = `:root{color-scheme:light dark}body{display:grid;min-height:90vh;place-items:center;margin:0;font:1.1rem/1.5 system-ui,sans-serif}` +
		`main{max-width:28rem;padding:1.5rem 2rem;border:1px solid #8886;border-left:.5rem solid #888;border-radius:.4rem}` +
		`h1{margin:0 0 .5rem;font-size:1.4rem}p{margin:0}.yes{border-left-color:#2a8a3e}.no{border-left-color:#c0392b}`

	pageText = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>TITLE</title>
<style>STYLE</style>
</head>
<body>
<main class="KIND">
<h1>TITLE</h1>
<p>TEXT</p>
</main>
</body>
</html>
`
)

// closingPage is the last page unless there is a Browser.Page.
func closingPage(w http.ResponseWriter, err error) {
	kind, title, text := "yes", "You are logged in", "You can close this page, and go back to the program."
	if err != nil {
		kind, title, text = "no", "You are not logged in", "Close this page, and go back to the program: it says why."
	}
	io.WriteString(w, strings.NewReplacer("KIND", kind, "TITLE", title, "TEXT", text, "STYLE", pageStyle).Replace(pageText))
}

// secure sets the header fields of all our pages: they load nothing and run nothing, nobody keeps them, and no other page gets hold
// of them or is told their address.
func secure(h http.Header) {
	sum := sha256.Sum256([]byte(pageStyle))
	h.Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// notFound is what strangers get.
func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, "No login that is under way belongs to this address. If you want to log in, go back to the program and begin again.\n")
}
