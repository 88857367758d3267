package schemetest

import "fmt"

// A clause is a sentence of the contract, or a part of one, in its own words. A test sees to it that it is still there.
type clause struct {
	of   string // where it is
	text string
}

var (
	clauseName       = clause{"Scheme.Name", "Name returns the auth-scheme (RFC 9110 §11.1)"}
	clauseConcurrent = clause{"Scheme", "A Scheme must be safe for concurrent use."}
	clauseAnswer     = clause{"Scheme.Answer", "Answer returns a Session that satisfies the challenge c of the refusal."}
	clauseObeys      = clause{"Scheme.Answer", "It obeys ctx if it takes time."}
	clauseNil        = clause{"Scheme.Answer", "It is nil only for the Scheme whose credentials were refused, if no challenge of the refusal has its name"}
	clauseRefusal    = clause{"Scheme.Answer", "The refusal is a copy of the response, whose Body returns an error when it is read."}
	clauseWhose      = clause{"Scheme", "a Session serves every request of its account: path, method and origin may decide what it sends, but never whose credentials"}
	clauseForWhom    = clause{"Scheme", "By [AccountOf] it learns for whom a request is sent."}
	clauseNothingNew = clause{"Scheme.Answer", "A Scheme whose credentials differ each time they are made, by a timestamp or a serial number, must return ErrCredentialsRefused itself unless something that counts has changed: a nonce, a token or a key."}

	clauseShared    = clause{"Session", "A Session is shared: Authorize may be called for any number of requests at once."}
	clauseAuthorize = clause{"Session.Authorize", "Authorize sets the credentials in the headers of req"}
	clauseCallers   = clause{"Session.Authorize", "A header that is there already is the caller's, and should be left alone."}
	clauseBody      = clause{"Session.Authorize", "Authorize must not read or replace req.Body"}
	clauseInTime    = clause{"Session.Authorize", "It obeys req.Context() if it takes time."}

	clausePlaintext = clause{"PlaintextSafe", "a [Scheme] whose credentials prove knowledge of a secret without carrying it"}
	clauseExclusive = clause{"Exclusive", "A Scheme must not return one that it has returned before."}
	clauseLearn     = clause{"Learner.Learn", "It must not block, nor read resp.Body."}
	clauseCovers    = clause{"Covers.Covers", "What it says is final"}
	clauseCarry     = clause{"Carrier.Carry", "It may send requests of its own first, without the caller's body, and obeys ctx."}
	clauseFollows   = clause{"Carrier.Carry", "must not follow redirects"}

	clauseTwice  = clause{"Transport", "A request goes to Base at most twice."}
	clauseOrigin = clause{"Transport", "Credentials are sent only to the origin that the caller addressed"}
	clauseForget = clause{"Transport.Forget", "Forget forgets all that is remembered for an account."}

	clausePanic   = clause{"schemetest", "No method panics."}
	clauseShown   = clause{"schemetest", "Start, Answer, AnswersForbidden, Learn and Covers change nothing of what they are shown."}
	clauseRequest = clause{"schemetest", "The caller's request is afterwards as it was before."}
	clauseSecret  = clause{"schemetest", "No text shows a secret: no error, no event, nothing that package fmt or encoding/json makes of a Scheme or a Session."}
)

// A breach is the error for a clause that is broken.
type breach struct {
	clause clause
	seen   string
}

func (b *breach) Error() string {
	return fmt.Sprintf("%s (%s: %q)", b.seen, b.clause.of, b.clause.text)
}
