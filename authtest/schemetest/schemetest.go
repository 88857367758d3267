package schemetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/findings"
)

// Options say what a check needs to know of a Scheme besides how to make one.
type Options struct {
	// Server answers as a server of the Scheme does, whatever the path and the method: with a status below 400 if a
	// request has the right credentials, otherwise with a 401 and what it asks for. It is also asked without
	// credentials, to see how it refuses. It must not hijack connections. An authtest.Server can be one. One that authenticates
	// connections can tell them apart by Request.RemoteAddr together with http.LocalAddrContextKey: ports are used again.
	//
	// If nil, it is a server that accepts whatever follows the Scheme's name in Authorization.
	Server http.Handler

	// Accounts are for a Scheme that has other credentials for each account (see authretry.AccountOf): by the name of
	// the account, at least two servers in place of Server, of which each accepts the credentials of its account alone. One
	// Transport drives the Scheme for all of them, and no request may have the credentials of another account: those
	// that its server refuses, and the other's accepts, or refuses with stale=true as Digest has it. Servers that remember
	// what they have sent, such as nonces, and do not say that should have one memory. All else is checked for the
	// account whose name sorts first. If nil, the Transport has no Account.
	Accounts map[string]http.Handler

	// Renew gives an account other credentials: the Scheme can get only those from then on, and the account's server in
	// Accounts accepts no others. It shows that nothing is remembered after authretry.Transport.Forget. It is
	// called when no request is under way. If nil, that is not checked.
	Renew func(account string)

	// Slow returns a Scheme that has to wait for its credentials for as long as its context lasts: its source does not
	// answer. It shows that waiting ends with the context. If nil, that is not checked.
	Slow func() authretry.Scheme

	// Secrets are what must not be seen: passwords, tokens, keys. They are looked for as they are, and in base64, hex and
	// percent-encoding. Each must be long enough not to be found by chance, and 4 bytes at least. Package fmt prints
	// even what is behind a pointer with some verbs, so a Scheme or Session with secrets needs a Format method.
	Secrets []string

	// AnswersAgain allows the Scheme to answer a refusal of its credentials that tells it nothing new. It is for those
	// that replace a token or a key by themselves, as authretry.Bearer does with a TokenSource; for those that
	// count, so that good credentials are refused if they come out of order, as those of authretry.Digest are; and for
	// a Carrier, whose connection may have been closed. Where the Scheme has a token that is replaced and a timestamp
	// besides, check it with one that stays the same, too. If false, see Scheme.Answer.
	AnswersAgain bool

	limit      time.Duration // how long anything may take; 0: defaultLimit
	learnLimit time.Duration // how long Learn may take; 0: a fifth of limit
}

// Format writes how many secrets there are, and none of them, whatever the verb.
func (o Options) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "schemetest.Options(%d accounts, %d secrets)", len(o.Accounts), len(o.Secrets))
}

// MarshalJSON is Format for JSON.
func (o Options) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(o)) }

// defaultLimit is far more than anything takes on the loopback interface, also with -race on a busy machine.
const defaultLimit = 30 * time.Second

// Check checks the Schemes that newScheme returns: each time a new one, with its credentials at hand. It returns nil, or
// an error for each thing that is wrong, all joined by [errors.Join].
//
// If something hangs, it is left behind, and nothing more is checked.
func Check(newScheme func() authretry.Scheme, o Options) error {
	k := newCheck(newScheme, o)
	for _, c := range cases {
		k.run(c)
	}
	return errors.Join(k.Errs()...)
}

// Run is [Check] with a subtest for each part. What several parts find fails the first of them only.
func Run(t *testing.T, newScheme func() authretry.Scheme, o Options) {
	k := newCheck(newScheme, o)
	for _, err := range k.Errs() {
		t.Error(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range k.run(c) {
				t.Error(err)
			}
		})
	}
}

// A testCase is one part of the check.
type testCase struct {
	name string
	run  func(*check)
}

// A check is one call of Check or Run.
type check struct {
	Options
	newScheme func() authretry.Scheme
	name      string   // of the Scheme
	accounts  []string // in order; nil: there is none

	findings.List
}

func newCheck(newScheme func() authretry.Scheme, o Options) *check {
	k := &check{Options: o, newScheme: newScheme}
	if k.limit == 0 {
		k.limit = defaultLimit
	}
	k.learnLimit = cmp.Or(k.learnLimit, k.limit/5)
	s := newScheme()
	if s == nil {
		k.misused("newScheme returned nil")
		return k
	}
	k.name = s.Name()
	k.setAccounts()
	if k.Server == nil {
		k.Server = acceptingAll(k.name)
	}
	if k.refusal() == nil {
		k.misused("Options.Server answered a request without credentials with another status than 401")
	}
	for _, secret := range k.Secrets {
		if len(secret) < 4 {
			k.misused("Options.Secrets has one of less than 4 bytes")
		}
	}
	return k
}

// run runs a case, and returns the errors that are new.
func (k *check) run(c testCase) []error {
	known := len(k.Errs())
	if !k.IsStopped() {
		c.run(k)
	}
	return k.Errs()[known:]
}

// broken reports that a clause is broken, once for each thing that was seen.
func (k *check) broken(c clause, format string, args ...any) {
	k.Report(&breach{c, fmt.Sprintf(format, args...)})
}

// misused reports that the check cannot be made.
func (k *check) misused(format string, args ...any) {
	k.Report(fmt.Errorf("schemetest: "+format, args...))
	k.Stop()
}
