package schemetest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

const secret = "open-sesame"

// A fake is a Scheme that sends "Fake open-sesame", or what its answer says.
type fake struct {
	name   string
	answer func(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error)
}

func (f *fake) Name() string {
	if f.name != "" {
		return f.name
	}
	return "Fake"
}

func (f *fake) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if f.answer != nil {
		return f.answer(ctx, c, refusal)
	}
	return soundAnswer(put{}, refusal)
}

func (f *fake) Format(s fmt.State, _ rune) { io.WriteString(s, "fake") }

// soundAnswer is what a Scheme answers whose only credentials are those of put.
func soundAnswer(s authretry.Session, refusal *http.Response) (authretry.Session, error) {
	if refusal.Request.Header.Get("Authorization") == "Fake "+secret {
		return nil, authretry.ErrCredentialsRefused
	}
	return s, nil
}

// A starting is a fake that sends credentials ahead.
type starting struct {
	fake
	start func(ctx context.Context, req *http.Request) (authretry.Session, error)
}

func (s *starting) Start(ctx context.Context, req *http.Request) (authretry.Session, error) {
	if s.start != nil {
		return s.start(ctx, req)
	}
	return put{}, nil
}

// A stepping is a fake that answers a 403, if answers says so.
type stepping struct {
	fake
	answers func(c *authretry.Challenge) bool
}

func (s *stepping) AnswersForbidden(c *authretry.Challenge) bool { return s.answers(c) }

// A safe is a fake that claims not to send its secret.
type safe struct{ fake }

func (*safe) PlaintextSafe() bool { return true }

// A put is a Session that puts the credentials into the header, or does what authorize says.
type put struct {
	authorize func(req *http.Request) error
}

func (p put) Authorize(req *http.Request) error {
	if p.authorize != nil {
		return p.authorize(req)
	}
	req.Header.Set("Authorization", "Fake "+secret)
	return nil
}

// A lent is an Exclusive put.
type lent struct{ put }

func (*lent) Exclusive() {}

// A learning is a put that learns.
type learning struct {
	put
	learn func(resp *http.Response, refused bool) (bool, error)
}

func (l learning) Learn(resp *http.Response, refused bool) (bool, error) {
	return l.learn(resp, refused)
}

// A covering is a put that knows its space.
type covering struct {
	put
	covers func(*url.URL) bool
}

func (c *covering) Covers(u *url.URL) bool { return c.covers(u) }

// A carrying is a put whose requests go by what carry returns.
type carrying struct {
	put
	carry func(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error)
}

func (c carrying) Carry(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	return c.carry(ctx, base)
}

// A roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// What a Session can be besides, to be embedded beside a lent or a put.
type (
	coversAll  struct{}
	carriesOwn struct{}
	keeps      struct{}
)

func (coversAll) Covers(*url.URL) bool { return true }

func (carriesOwn) Carry(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	return base.(*http.Transport).Clone(), nil
}

func (keeps) Learn(_ *http.Response, refused bool) (bool, error) { return refused, nil }

// server accepts what begins with the right credentials.
var server = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Fake "+secret) {
		w.Header().Set("WWW-Authenticate", `Fake realm="x"`)
		w.WriteHeader(401)
	}
})

// answering returns a function that makes fakes which answer by the Session that newSession makes.
func answering(newSession func() authretry.Session) func() authretry.Scheme {
	return func() authretry.Scheme {
		return &fake{answer: func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
			return soundAnswer(newSession(), refusal)
		}}
	}
}

func hang(ctx context.Context, _ *authretry.Challenge, _ *http.Response) (authretry.Session, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("no credentials: %w", ctx.Err())
}

// Schemes that keep the contract pass, whatever they implement of it.
func TestSoundSchemes(t *testing.T) {
	t.Parallel()
	few := []string{"starts", "learns", "all of that", "supports nothing, in the end"}
	for name, newScheme := range map[string]func() authretry.Scheme{
		"plain":  func() authretry.Scheme { return &fake{} },
		"starts": func() authretry.Scheme { return &starting{} },
		"learns": answering(func() authretry.Session {
			return struct {
				put
				keeps
			}{}
		}),
		"covers": answering(func() authretry.Session {
			return struct {
				put
				coversAll
			}{}
		}),
		"carries": answering(func() authretry.Session {
			return struct {
				put
				carriesOwn
			}{}
		}),
		"exclusive": answering(func() authretry.Session { return &lent{} }),
		"exclusive, covers": answering(func() authretry.Session {
			return &struct {
				lent
				coversAll
			}{}
		}),
		"exclusive, carries": answering(func() authretry.Session {
			return &struct {
				lent
				carriesOwn
			}{}
		}),
		"covers, carries": answering(func() authretry.Session {
			return struct {
				put
				coversAll
				carriesOwn
			}{}
		}),
		"all of that": answering(func() authretry.Session {
			return &struct {
				lent
				coversAll
				carriesOwn
				keeps
			}{}
		}),
		"never covers":       answering(func() authretry.Session { return &covering{covers: func(*url.URL) bool { return false }} }),
		"closes the refusal": before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) { refusal.Body.Close() }),
		"supports nothing, in the end": func() authretry.Scheme {
			return &fake{answer: func(_ context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if refusal.Request.Header.Get("Authorization") != "" {
					return nil, authretry.ErrUnsupportedChallenge
				}
				return put{}, nil
			}}
		},
	} {
		if thorough.Or(false, !slices.Contains(few, name)) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Run(t, newScheme, Options{Server: server, Secrets: []string{secret},
				Slow: func() authretry.Scheme { return &fake{answer: hang} }})
		})
	}
}

// A shaking is a Scheme that authenticates connections, by a request of its own.
type shaking struct {
	fake
	key func(ctx context.Context) string
}

func (s *shaking) Answer(_ context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if c == nil {
		return nil, authretry.ErrUnsupportedChallenge
	}
	target := refusal.Request.URL.String()
	return carrying{put{func(*http.Request) error { return nil }},
		func(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
			own := base.(*http.Transport).Clone()
			own.MaxConnsPerHost = 1
			req, err := http.NewRequestWithContext(ctx, "GET", target, nil)
			if err != nil {
				return nil, err
			}
			req.Header.Set("Authorization", "Fake "+s.key(ctx))
			resp, err := own.RoundTrip(req)
			if err != nil {
				return nil, err
			}
			io.Copy(io.Discard, resp.Body)
			return own, resp.Body.Close()
		}}, nil
}

// connectionOf tells connections apart. The port of a client alone does not: it may be another's a moment later.
func connectionOf(r *http.Request) string {
	return fmt.Sprint(r.RemoteAddr, " ", r.Context().Value(http.LocalAddrContextKey))
}

func TestSoundSchemeThatAuthenticatesConnections(t *testing.T) {
	t.Parallel()
	var proved sync.Map
	Run(t, func() authretry.Scheme { return &shaking{key: func(context.Context) string { return secret }} }, Options{
		Server: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				proved.Store(connectionOf(r), true)
			}
			if _, ok := proved.Load(connectionOf(r)); !ok {
				server(w, r)
			}
		}),
		Secrets:      []string{secret},
		AnswersAgain: true,
	})
}

// A Session is watched without becoming another: a Transport sees the same of it.
func TestWatchedSessionsImplementTheSame(t *testing.T) {
	k := newCheck(func() authretry.Scheme { return &fake{} }, Options{})
	trial := k.newTrial(k.newScheme, judged)
	defer trial.end()
	for _, s := range []authretry.Session{
		put{}, &lent{}, struct {
			put
			coversAll
		}{}, struct {
			put
			carriesOwn
		}{}, &struct {
			lent
			coversAll
		}{}, &struct {
			lent
			carriesOwn
		}{}, struct {
			put
			coversAll
			carriesOwn
		}{}, &struct {
			lent
			coversAll
			carriesOwn
		}{},
	} {
		w := trial.session("Answer", s)
		require.Equal(t, can(s), can(w), "%T", s)
	}
}

// can says what a Session implements besides.
func can(s authretry.Session) (can [3]bool) {
	_, can[0] = s.(authretry.Exclusive)
	_, can[1] = s.(authretry.Covers)
	_, can[2] = s.(authretry.Carrier)
	return can
}

// Secrets are found in any form that they usually take.
func TestShows(t *testing.T) {
	secret := "s3cret?>~\xff\xfe key"
	for name, text := range map[string]string{
		"plain":   "the key is " + secret,
		"base64":  "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+secret)),
		"URL":     "token=" + base64.RawURLEncoding.EncodeToString([]byte(secret)) + "; a",
		"hex":     fmt.Sprintf("{%x}", secret),
		"escaped": "/path?key=" + url.QueryEscape(secret) + "&a=b",
	} {
		require.True(t, shows(text, secret), name)
	}
	require.False(t, shows("Basic "+base64.StdEncoding.EncodeToString([]byte("u:p")), secret))
}

// The zero Options do for a Scheme that uses Authorization.
func TestZeroOptions(t *testing.T) {
	require.NoError(t, Check(func() authretry.Scheme { return &fake{} }, Options{}))
	require.NoError(t, Check(func() authretry.Scheme { return &starting{} }, Options{}))
}

// What makes a check impossible is said, too.
func TestMisuse(t *testing.T) {
	t.Parallel() // it waits for what hangs
	sound := func() authretry.Scheme { return &fake{} }
	for want, c := range map[string]struct {
		newScheme func() authretry.Scheme
		options   Options
	}{
		"newScheme returned nil":                       {func() authretry.Scheme { return nil }, Options{}},
		"without credentials with another status than": {sound, Options{Server: http.NotFoundHandler()}},
		"less than 4 bytes":                            {sound, Options{Secrets: []string{"abc"}}},
		"did not wait":                                 {sound, Options{Slow: sound}},
		"has its credentials at hand":                  {func() authretry.Scheme { return &fake{answer: hang} }, Options{limit: 400 * ms}},
	} {
		err := checkWithin(t, c.newScheme, c.options, func(err error) bool { return strings.Contains(err.Error(), want) })
		require.Len(t, err.(interface{ Unwrap() []error }).Unwrap(), 1, want)
	}
}

var errGaveUp = errors.New("gave up")
