package negotiate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/authretry/authretry"
)

// A session makes a token for each request to one service.
type session struct {
	kerberos Kerberos
	spn      string
	mutual   bool
}

// sessionOf returns the session in what Scheme.session has returned.
func sessionOf(s authretry.Session) *session {
	if c, ok := s.(*carried); ok {
		return c.session
	}
	return s.(*session)
}

// Authorize implements authretry.Session.
func (s *session) Authorize(req *http.Request) error {
	if len(req.Header["Authorization"]) > 0 {
		return nil
	}
	token, err := s.kerberos.Token(req.Context(), s.spn)
	if s.mutual && errors.Is(err, authretry.ErrChallengeRequired) {
		return fmt.Errorf("%v; and with Scheme.Mutual no request is sent in place of one with a token", err) // by which another could answer it
	}
	if err != nil {
		return err
	}
	if len(token) == 0 || base64.StdEncoding.EncodedLen(len(token)) > maxToken {
		return fmt.Errorf("negotiate: the token for %s has %d bytes, and at most %d are sent: the user is in very many groups, or the Kerberos in use is at fault", s.spn, len(token), maxToken/4*3)
	}
	req.Header["Authorization"] = []string{"Negotiate " + base64.StdEncoding.EncodeToString(token)}
	return nil
}

// An unproven is the error for a response without a valid proof.
type unproven struct {
	spn string
	why error
}

var errNoProof = errors.New("it has none, and Scheme.Mutual demands one")

func (e *unproven) Error() string {
	return fmt.Sprintf("negotiate: the response has no proof that it is from %s, and whoever it is from has got the request: %v", e.spn, e.why)
}

// Unwrap returns authretry.ErrMutualAuth as well.
func (e *unproven) Unwrap() []error { return []error{authretry.ErrMutualAuth, e.why} }

// Learn implements authretry.Learner: it demands the server's proof, if that is wanted, and reads why a token was refused.
func (s *session) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	if refused {
		return false, whyRefused(resp)
	}
	if !s.mutual || resp.StatusCode == http.StatusProxyAuthRequired {
		return false, nil
	}
	token := tokenIn(resp.Request.Header)
	if token == nil {
		return false, nil // it was the caller's
	}
	// A proxy's proof is in Proxy-Authentication-Info.
	replies := slices.Concat(tokensIn(resp.Header["Www-Authenticate"]), tokensIn(resp.Header["Authentication-Info"]))
	if len(replies) != 1 {
		return false, &unproven{s.spn, errNoProof}
	}
	reply := decode(replies[0])
	if reply == nil {
		return false, &unproven{s.spn, errNoProof}
	}
	if err := s.kerberos.Verify(s.spn, token, reply); err != nil {
		return false, &unproven{s.spn, err}
	}
	return false, nil
}

// whyRefused returns the error for a refusal.
func whyRefused(refusal *http.Response) error {
	reason := ""
	if tokens := tokensIn(refusal.Header["Www-Authenticate"]); len(tokens) == 1 {
		reason, _ = readRefusal(tokens[0])
	}
	return fmt.Errorf("%w%s", authretry.ErrCredentialsRefused, reason)
}

// Format keeps credentials out of everything that package fmt prints.
func (s *session) Format(f fmt.State, _ rune) { io.WriteString(f, "negotiate.session{}") }

// MarshalJSON keeps credentials out of JSON.
func (s *session) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
