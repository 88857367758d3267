package authretry

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Basic is the Basic authentication scheme (RFC 7617). User name and password are sent in UTF-8 and not encrypted, so
// they go over https, or to loopback, unless [Transport.AllowPlaintext] is set.
//
// It answers challenges, and from then on sends the credentials ahead in the path scope that RFC 7617 §2.2 defines:
// at or below the last slash of the path that was challenged. Basic is safe for concurrent use.
type Basic struct {
	// Username must not have a colon, and neither may have control characters (RFC 7617 §2); a request that needs them fails
	// otherwise. A Username of 12 bytes or more without a Password may be a key, as some APIs have it, and is shown no more than a
	// Password.
	Username, Password string

	// Ahead sends the credentials without waiting for a challenge, wherever no other Scheme comes first (see [Starter]).
	Ahead bool

	// Credentials is asked instead of Username and Password if it is not nil.
	Credentials CredentialsFunc
}

// Name returns "Basic".
func (b *Basic) Name() string { return "Basic" }

// Start implements [Starter]: it returns nothing unless Ahead is set.
func (b *Basic) Start(ctx context.Context, req *http.Request) (Session, error) {
	if !b.Ahead {
		return nil, nil
	}
	session, err := b.session(ctx, CredentialsRequest{Origin: originOf(req.URL).String()})
	if errors.Is(err, ErrUnsupportedChallenge) {
		return nil, nil
	}
	return session, err
}

// Answer implements [Scheme].
func (b *Basic) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	session, err := b.session(ctx, CredentialsRequest{Origin: originOf(refusal.Request.URL).String(), Challenge: c})
	if err != nil {
		return nil, err
	}
	if own := session.(basicSession); refusal.Request.Header.Get("Authorization") == own.values[0] {
		return nil, cmp.Or(own.refusedHint(), ErrCredentialsRefused)
	}
	return session, nil
}

// A basicSession sends a user name and a password.
type basicSession struct{ headerSession }

// errNoPassword is what Explain says besides that the credentials were refused: most often a variable of the environment is not set.
var errNoPassword = &refusedError{text: "the password is empty"}

// refusedHint returns what there is to say of a refusal besides that the credentials were refused, or nil.
func (s basicSession) refusedHint() error {
	value, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.values[0], "Basic "))
	if _, password, _ := strings.Cut(string(value), ":"); password == "" {
		return errNoPassword
	}
	return nil
}

func (b *Basic) session(ctx context.Context, r CredentialsRequest) (Session, error) {
	username, password, err := b.Username, b.Password, error(nil)
	if b.Credentials == nil {
		err = b.Validate()
	} else {
		r.Account = AccountOf(ctx)
		if username, password, err = b.Credentials(ctx, r); err == nil {
			err = checkBasic(username, password)
		}
	}
	if err != nil {
		return nil, err
	}
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
	return basicSession{headerSession{name: "Authorization", values: []string{value}}}, nil
}

// Validate says what is wrong with the fields. See [Transport.Validate].
func (b *Basic) Validate() error {
	switch {
	case b.Credentials != nil:
		return nil
	case b.Username == "" && b.Password == "":
		return errors.New("authretry: Basic has neither Username nor Credentials")
	}
	return checkBasic(b.Username, b.Password)
}

func checkBasic(username, password string) error {
	switch {
	case strings.Contains(username, ":"):
		return errors.New("authretry: Basic cannot express a user name with a colon (RFC 7617 §2)")
	case hasControl(username+password) || strings.Contains(username+password, "\t"):
		return errors.New("authretry: Basic user name or password has a control character (RFC 7617 §2)")
	}
	return nil
}

// Format keeps the password out of everything that package fmt prints.
func (b Basic) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.Basic", b.shown()...)
}

// MarshalJSON keeps the password out of JSON.
func (b Basic) MarshalJSON() ([]byte, error) {
	return marshalShown(b.shown()...)
}

func (b Basic) shown() []shownField {
	user := shown("Username", b.Username)
	if isKey(b.Username, b.Password) {
		user = redacted("Username", b.Username)
	}
	return []shownField{
		user,
		redacted("Password", b.Password),
		shown("Ahead", b.Ahead),
	}
}
