package negotiate

import "context"

// A Kerberos makes the tokens of one user, and verifies what services reply. [Client] is one, and what [Default] returns. Implement
// it to put in another Kerberos, such as the system's GSSAPI.
//
// A Kerberos must be safe for concurrent use. Its texts in package fmt, and its errors, must not show a secret.
type Kerberos interface {
	// Token returns a new token for a service such as "HTTP/www.example.com", with which a context of Kerberos alone begins (RFC 4178
	// §4.2.1, RFC 4121 §4.1). It asks for mutual authentication. It obeys ctx. An error that wraps
	// authretry.ErrChallengeRequired says that there is no such service: what would be sent ahead goes out without a token.
	Token(ctx context.Context, spn string) (token []byte, err error)

	// Verify verifies that a reply is the service's, to a token that Token has returned. It is called only if
	// [Scheme].Mutual is set, and does not block.
	Verify(spn string, token, reply []byte) error
}

// A Renewer is a [Kerberos] that can get another ticket in place of one that a service refuses, as it does after its key was
// changed. Only those who implement a Kerberos need it.
type Renewer interface {
	Kerberos

	// Renew drops the ticket in a token that the service has refused, and reports whether Token is going to use another one. It
	// must say so only now and then, since a service may refuse for other reasons, and for ever. It does not block.
	Renew(spn string, token []byte) bool
}
