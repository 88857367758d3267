package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// mostProofAge is how old a proof may be at most servers.
const mostProofAge = time.Minute

// sentToken returns the token, be it from a flag or in a header given with -H.
func (in *inquiry) sentToken() string {
	if scheme, token, ok := strings.Cut(in.header.Get("Authorization"), " "); ok && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "DPoP")) {
		return strings.TrimSpace(token)
	}
	return in.token
}

// boundToken is for a token that needs a proof, or a certificate, and came without.
func (in *inquiry) boundToken() *cause {
	t := decodeJWT(in.sentToken())
	if !in.refused() || t == nil || t.Confirms == nil {
		return nil
	}
	switch {
	case t.Confirms.Thumbprint != "" && !strings.EqualFold(in.last(), "DPoP"):
		return &cause{"token-bound", certain, "The token is bound to a key (DPoP), and was sent without proof. Its cnf has a jkt (RFC 9449 §6.1); as Bearer, it is refused.",
			"Send it with a proof. In a program, use package dpop, with the key that it was issued for."}
	case t.Confirms.Certificate != "" && in.certificate == nil:
		return &cause{"token-bound", certain, "The token is bound to a client certificate, and none was sent. Its cnf has x5t#S256 (RFC 8705), and the server has not asked for one here.",
			"Ask the host that wants client certificates. It often has another name."}
	case t.Confirms.Certificate != "":
		return &cause{"token-bound", certain, "The token is bound to a client certificate, and none was sent. Its cnf has x5t#S256 (RFC 8705).", "Send it with the certificate that it was issued for."}
	}
	return nil
}

// proof is for a DPoP proof given with -H that cannot be right, as far as that shows without its key.
func (in *inquiry) proof() *cause {
	if !in.refused() || in.header.Get("Authorization") == "" || !strings.EqualFold(in.last(), "DPoP") {
		return nil
	}
	const fix = "Make a proof for each request. Package dpop does that, nonces included."
	values := in.header.Values("DPoP")
	if len(values) != 1 {
		return &cause{"dpop-proof", certain, fmt.Sprintf("There must be one DPoP header with a proof, and there are %d. See RFC 9449 §4.3.", len(values)), fix}
	}
	p := decodeJWT(values[0])
	if p == nil {
		return &cause{"dpop-proof", certain, "The DPoP header is no JWT, so it is no proof. See RFC 9449 §4.2.", fix}
	}
	wrong := in.wrongInProof(p)
	if len(wrong) == 0 {
		return nil
	}
	if len(wrong) == 1 && strings.Contains(wrong[0], "nonce") {
		return &cause{"dpop-nonce", certain, "The DPoP proof lacks the nonce that the server gives. What is wrong: " + wrong[0] + ".",
			"Put the response's DPoP-Nonce into the proof, and send again. Package dpop does that."}
	}
	return &cause{"dpop-proof", certain, "The DPoP proof is not for this request, or not fresh. What is wrong: " + strings.Join(wrong, "; ") + ". (Its signature was not checked here.)", fix}
}

// fixOfProof returns what to do about a proof that the server has refused with an error code.
func (in *inquiry) fixOfProof(code string) string {
	own, nonce := in.trial.isBound() && in.last() != "", code == "use_dpop_nonce"
	switch {
	case own && nonce && in.resp.Header.Get("DPoP-Nonce") == "":
		return "Have the server repaired: it asks for a nonce, and gives none. It must come in DPoP-Nonce (RFC 9449 §9)."
	case own && nonce:
		return "Have the server repaired: it takes none of its own nonces. Each proof but the first had the one that DPoP-Nonce gave last."
	case own:
		return "Compare the clocks. See also whether something on the way changes the URL: package dpop has made the proof for just this request."
	case nonce:
		return "Put the response's DPoP-Nonce into the proof, and send again. Package dpop does that."
	}
	return "Make a new proof for each request, with its method and URL. Package dpop does that. Compare the clocks, too."
}

// wrongInProof returns what is wrong with a proof (RFC 9449 §4.3).
func (in *inquiry) wrongInProof(p *jwt) (wrong []string) {
	last := in.hops[len(in.hops)-1]
	if p.Header.Type != "dpop+jwt" {
		wrong = append(wrong, "its typ is not dpop+jwt")
	}
	if p.Method != last.req.Method {
		wrong = append(wrong, "its htm is not "+printable(last.req.Method, 20))
	}
	if !sameTarget(p.URL, last.req.URL) {
		wrong = append(wrong, "its htu is not "+in.clean.url(&url.URL{Scheme: last.req.URL.Scheme, Host: last.req.URL.Host, Path: last.req.URL.Path}))
	}
	hash := sha256.Sum256([]byte(in.sentToken()))
	switch p.TokenHash {
	case base64.RawURLEncoding.EncodeToString(hash[:]):
	case "":
		wrong = append(wrong, "it has no ath, the hash of the token")
	default:
		wrong = append(wrong, "its ath is that of another token")
	}
	wants := in.resp.Header.Get("DPoP-Nonce")
	now := in.now
	if date, ok := in.date(); ok {
		now = date
	}
	switch {
	case wants != "" && p.Nonce == "":
		wrong = append(wrong, "it has no nonce, and the server gives one in DPoP-Nonce")
	case wants != "" && p.Nonce != wants:
		wrong = append(wrong, "its nonce is not the one that the server gives now")
	case p.Issued == nil:
		wrong = append(wrong, "it has no iat")
	case now.Sub(at(p.Issued)).Abs() > mostProofAge:
		wrong = append(wrong, "by the server's clock, it is "+about(now.Sub(at(p.Issued)).Abs())+" off")
	}
	if t := decodeJWT(in.sentToken()); t != nil && t.Confirms != nil && t.Confirms.Thumbprint != "" {
		if own := thumbprint(p.Header.Key); own != "" && own != t.Confirms.Thumbprint {
			wrong = append(wrong, "it is signed by another key than the token is bound to")
		}
	}
	return wrong
}

// sameTarget reports whether a proof's htu is the URL without query and fragment.
func sameTarget(htu string, u *url.URL) bool {
	got, err := url.Parse(htu)
	return err == nil && strings.EqualFold(got.Scheme, u.Scheme) && isSameHost(got, u) && portOf(got) == portOf(u) && orSlash(got.EscapedPath()) == orSlash(u.EscapedPath())
}

func orSlash(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// thumbprint returns a key's thumbprint (RFC 7638 §3); empty if it is of no kind that is known.
func thumbprint(key json.RawMessage) string {
	var fields map[string]any
	if json.Unmarshal(key, &fields) != nil {
		return ""
	}
	kind, _ := fields["kty"].(string)
	needed := map[string][]string{"EC": {"crv", "kty", "x", "y"}, "OKP": {"crv", "kty", "x"}, "RSA": {"e", "kty", "n"}}[kind]
	members := map[string]string{}
	for _, name := range needed {
		value, ok := fields[name].(string)
		if !ok {
			return ""
		}
		members[name] = value
	}
	canonical, err := json.Marshal(members) // the names in order, without white space
	if err != nil || len(needed) == 0 {
		return ""
	}
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
