package schemetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// A broken is a Scheme that breaks one clause of the contract.
type broken struct {
	name    string
	clause  clause
	scheme  func() authretry.Scheme
	options Options // Server and Secrets are added
}

// authorizing returns a function that makes fakes whose Session does what authorize says, and then what is right.
func authorizing(authorize func(req *http.Request)) func() authretry.Scheme {
	return answering(func() authretry.Session {
		return put{func(req *http.Request) error {
			authorize(req)
			return put{}.Authorize(req)
		}}
	})
}

// before returns a function that makes fakes whose Answer does what do says, and then what is right.
func before(do func(ctx context.Context, c *authretry.Challenge, refusal *http.Response)) func() authretry.Scheme {
	return func() authretry.Scheme {
		return &fake{answer: func(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
			do(ctx, c, refusal)
			return soundAnswer(put{}, refusal)
		}}
	}
}

// returning returns a function that makes fakes whose Answer returns just that.
func returning(s authretry.Session, err error) func() authretry.Scheme {
	return func() authretry.Scheme {
		return &fake{answer: func(context.Context, *authretry.Challenge, *http.Response) (authretry.Session, error) { return s, err }}
	}
}

// stamped returns a Session whose credentials differ each time.
func stamped() authretry.Session {
	var n atomic.Int64
	return put{func(req *http.Request) error {
		req.Header.Set("Authorization", fmt.Sprintf("Fake %s at %d-%d", secret, time.Now().UnixNano(), n.Add(1)))
		return nil
	}}
}

func startsWith(start func(context.Context, *http.Request) (authretry.Session, error)) func() authretry.Scheme {
	return func() authretry.Scheme { return &starting{start: start} }
}

func learnsBy(learn func(resp *http.Response, refused bool) (bool, error)) func() authretry.Scheme {
	return answering(func() authretry.Session { return learning{learn: learn} })
}

// carriedBy returns a function that makes fakes whose Session sends by what by makes of its base.
func carriedBy(by func(base http.RoundTripper) http.RoundTripper) func() authretry.Scheme {
	return answering(func() authretry.Session {
		return carrying{carry: func(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) { return by(base), nil }}
	})
}

// resend sends a copy of a request once more.
func resend(req *http.Request) {
	req = req.Clone(context.Background())
	req.Body = nil
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
	}
}

func brokenNames() []broken {
	return []broken{
		{"no token", clauseName, func() authretry.Scheme { return &fake{name: "Fake Scheme"} }, Options{}},
		{"not asked for", clauseName, func() authretry.Scheme { return &fake{name: "Fale"} }, Options{}},
		{"not the same", clauseName, func() authretry.Scheme { return &renamed{} }, Options{}},
	}
}

type renamed struct {
	fake
	n atomic.Int32
}

func (r *renamed) Name() string { return []string{"Fake", "fake"}[r.n.Add(1)%2] }

func brokenAnswers() []broken {
	return []broken{
		{"no Session", clauseAnswer, returning(nil, nil), Options{}},
		{"wrong credentials", clauseAnswer, returning(put{func(req *http.Request) error {
			req.Header.Set("Authorization", "Fake close-sesame")
			return nil
		}}, nil), Options{}},
		{"an error", clauseAnswer, returning(nil, errGaveUp), Options{}},
		{"sends by itself", clauseTwice, before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) {
			resend(refusal.Request)
		}), Options{}},
		{"sends by itself until it is accepted", clauseTwice, func() authretry.Scheme {
			var answers, accepted atomic.Int32
			return &fake{answer: func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if answers.Add(1) > 1 && accepted.Load() == 0 && refusal.Request.Header.Get("Authorization") == "" {
					resend(refusal.Request)
				}
				return soundAnswer(learning{learn: func(_ *http.Response, refused bool) (bool, error) {
					if !refused {
						accepted.Add(1)
					}
					return false, nil
				}}, refusal)
			}}
		}, Options{}},
		{"nil challenge", clauseNil, before(func(_ context.Context, c *authretry.Challenge, _ *http.Response) {
			_ = c.Params.Get("realm")
		}), Options{}},
		{"panics", clausePanic, authorizing(func(*http.Request) { panic("no key") }), Options{}},
		{"reads the refusal", clauseRefusal, before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) {
			refusal.Body.Read(make([]byte, 1))
		}), Options{}},
		{"changes the refusal", clauseShown, before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) {
			refusal.Header.Del("WWW-Authenticate")
		}), Options{}},
		{"changes the status", clauseShown, before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) {
			refusal.StatusCode = 200
		}), Options{}},
		{"changes the refused URL", clauseShown, before(func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) {
			refusal.Request.URL.RawQuery = "authenticated"
		}), Options{}},
		{"changes the challenge", clauseShown, before(func(_ context.Context, c *authretry.Challenge, _ *http.Response) {
			if c != nil {
				c.Params = append(c.Params, authretry.Param{Name: "seen", Value: "yes"})
			}
		}), Options{}},
		{"changes the challenge of a 403", clauseShown, func() authretry.Scheme {
			return &stepping{answers: func(c *authretry.Challenge) bool {
				c.Params = nil
				return false
			}}
		}, Options{}},
		{"panics at a 403", clausePanic, func() authretry.Scheme {
			return &stepping{answers: func(c *authretry.Challenge) bool { panic("no scope") }}
		}, Options{}},
		{"stamps for a 403", clauseNothingNew, func() authretry.Scheme {
			s := &stepping{answers: func(c *authretry.Challenge) bool { return c.StepUp() != 0 }}
			s.answer = func(_ context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if c.StepUp() != 0 {
					return stamped(), nil
				}
				return soundAnswer(put{}, refusal)
			}
			return s
		}, Options{}},
		{"stamps ahead", clauseNothingNew, func() authretry.Scheme {
			return &starting{fake: *returning(stamped(), nil)().(*fake), start: func(context.Context, *http.Request) (authretry.Session, error) {
				return stamped(), nil
			}}
		}, Options{}},
		{"stamps", clauseNothingNew, returning(stamped(), nil), Options{}},
		{"stamps for a challenge", clauseNothingNew, func() authretry.Scheme {
			return &fake{answer: func(_ context.Context, c *authretry.Challenge, _ *http.Response) (authretry.Session, error) {
				if c == nil {
					return nil, authretry.ErrCredentialsRefused
				}
				return stamped(), nil
			}}
		}, Options{}},
		{"stamps without a challenge", clauseNothingNew, func() authretry.Scheme {
			return &fake{answer: func(_ context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if c == nil {
					return stamped(), nil
				}
				return soundAnswer(put{}, refusal)
			}}
		}, Options{}},
		{"adds a stamp", clauseNothingNew, returning(put{func(req *http.Request) error {
			if req.Header.Get("X-Date") == "" {
				req.Header.Set("X-Date", fmt.Sprint(time.Now().UnixNano()))
			}
			return put{}.Authorize(req)
		}}, nil), Options{}},
		{"one at a time", clauseConcurrent, func() authretry.Scheme {
			var busy atomic.Bool
			return &fake{answer: func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if !busy.CompareAndSwap(false, true) {
					return nil, authretry.ErrUnsupportedChallenge
				}
				defer busy.Store(false)
				time.Sleep(ms)
				return soundAnswer(&lent{}, refusal)
			}}
		}, Options{}},
		{"an Exclusive Session again", clauseExclusive, func() authretry.Scheme {
			return returning(&lent{}, nil)()
		}, Options{AnswersAgain: true}},
		{"starts with an Exclusive Session again", clauseExclusive, func() authretry.Scheme {
			only := &lent{}
			return startsWith(func(context.Context, *http.Request) (authretry.Session, error) { return only, nil })()
		}, Options{}},
	}
}

func brokenStarts() []broken {
	return []broken{
		{"changes the header", clauseShown, startsWith(func(_ context.Context, req *http.Request) (authretry.Session, error) {
			req.Header.Set("X-Key", secret)
			return put{}, nil
		}), Options{}},
		{"changes the URL", clauseShown, startsWith(func(_ context.Context, req *http.Request) (authretry.Session, error) {
			req.URL.RawQuery = "key=" + secret
			return put{}, nil
		}), Options{}},
		{"reads the body", clauseShown, startsWith(func(_ context.Context, req *http.Request) (authretry.Session, error) {
			if req.Body != nil {
				req.Body.Read(make([]byte, 1))
			}
			return put{}, nil
		}), Options{}},
	}
}

func brokenSessions() []broken {
	return []broken{
		{"changes the URL", clauseAuthorize, authorizing(func(req *http.Request) { req.URL = &url.URL{Scheme: "https", Host: "elsewhere.test"} }), Options{}},
		{"changes the method", clauseAuthorize, authorizing(func(req *http.Request) { req.Method = "PUT" }), Options{}},
		{"changes a header", clauseCallers, authorizing(func(req *http.Request) { req.Header.Set("Schemetest-Caller", "one") }), Options{}},
		{"overwrites the caller's", clauseCallers, authorizing(func(req *http.Request) { req.Header.Set("X-Key", secret) }), Options{}},
		{"reads the body", clauseBody, authorizing(func(req *http.Request) {
			if req.Body != nil {
				req.Body.Read(make([]byte, 1))
			}
		}), Options{}},
		{"closes the body", clauseBody, authorizing(func(req *http.Request) {
			if req.Body != nil {
				req.Body.Close()
			}
		}), Options{}},
		{"replaces the body", clauseBody, authorizing(func(req *http.Request) {
			if req.Body != nil {
				req.Body = http.NoBody
			}
		}), Options{}},
		{"one at a time", clauseShared, func() authretry.Scheme {
			var busy atomic.Bool
			return answering(func() authretry.Session {
				return put{func(req *http.Request) error {
					if !busy.CompareAndSwap(false, true) {
						req.Header.Set("Authorization", "Fake close-sesame")
						return nil
					}
					defer busy.Store(false)
					time.Sleep(ms)
					return put{}.Authorize(req)
				}}
			})()
		}, Options{}},
		{"learns from the body", clauseLearn, learnsBy(func(resp *http.Response, _ bool) (bool, error) {
			resp.Body.Read(make([]byte, 1))
			return false, nil
		}), Options{}},
		{"learns slowly", clauseLearn, func() func() authretry.Scheme {
			var once sync.Once // or else this takes long
			return learnsBy(func(*http.Response, bool) (bool, error) {
				once.Do(func() { time.Sleep(220 * ms) })
				return false, nil
			})
		}(), Options{learnLimit: 200 * ms}},
		{"changes the response", clauseShown, learnsBy(func(resp *http.Response, refused bool) (bool, error) {
			resp.Header.Set("Learnt", "yes")
			return false, nil
		}), Options{}},
		{"follows redirects", clauseOrigin, learnsBy(func(resp *http.Response, _ bool) (bool, error) {
			if u, err := resp.Location(); err == nil {
				req := resp.Request.Clone(context.Background())
				req.URL = u
				resend(req)
			}
			return false, nil
		}), Options{}},
		{"covers now and then", clauseCovers, answering(func() authretry.Session {
			var n atomic.Int32
			return &covering{covers: func(*url.URL) bool { return n.Add(1)%2 == 0 }}
		}), Options{}},
		{"covers by a change", clauseShown, answering(func() authretry.Session {
			return &covering{covers: func(u *url.URL) bool { u.RawQuery = ""; return true }}
		}), Options{}},
	}
}

func brokenCarriers() []broken {
	return []broken{
		{"sends again", clauseTwice, carriedBy(func(base http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				resend(req)
				return base.RoundTrip(req)
			})
		}), Options{}},
		{"waits for ever", clauseAnswer, carriedBy(func(http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return nil, req.Context().Err()
			})
		}), Options{limit: 300 * ms}},
		{"follows redirects", clauseFollows, carriedBy(func(base http.RoundTripper) http.RoundTripper {
			return roundTrip((&http.Client{Transport: base}).Do)
		}), Options{}},
		{"follows redirects and hides it", clauseFollows, carriedBy(func(base http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				resp, err := base.RoundTrip(req)
				if err != nil {
					return nil, err
				}
				if u, err := resp.Location(); err == nil {
					next := req.Clone(req.Context())
					next.URL, next.Body = u, nil
					resp.Body.Close()
					resp, err = base.RoundTrip(next)
					if err != nil {
						return nil, err
					}
					resp.Request = req
				}
				return resp, nil
			})
		}), Options{}},
		{"changes the caller's URL", clauseRequest, carriedBy(func(base http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				req.URL.RawQuery = "carried"
				return base.RoundTrip(req)
			})
		}), Options{}},
	}
}

func brokenSecrets() []broken {
	return []broken{
		{"in an error", clauseSecret, func() authretry.Scheme {
			return &fake{answer: func(_ context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if refusal.Request.Header.Get("Authorization") != "" {
					return nil, fmt.Errorf("%w: %s is not the key", authretry.ErrCredentialsRefused, secret)
				}
				return put{}, nil
			}}
		}, Options{}},
		{"in a Scheme", clauseSecret, func() authretry.Scheme { return &printed{Secret: secret} }, Options{}},
		{"in a Scheme's JSON", clauseSecret, func() authretry.Scheme { return &marshalled{Secret: secret} }, Options{}},
		{"in a Session, in base64", clauseSecret, answering(func() authretry.Session { return &printedSession{Value: "Om9wZW4tc2VzYW1l"} }), Options{}},
		{"on the wire", clausePlaintext, func() authretry.Scheme { return &safe{} }, Options{}},
		{"on the wire, escaped", clausePlaintext, func() authretry.Scheme {
			return &safe{*returning(put{func(req *http.Request) error {
				req.Header.Set("Authorization", "Fake "+secret[:4]+"%2D"+secret[5:])
				return nil
			}}, nil)().(*fake)}
		}, Options{Server: acceptingAll("Fake")}},
	}
}

// A printed has no Format method.
type printed struct{ Secret string }

func (*printed) Name() string { return "Fake" }

func (*printed) Answer(_ context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	return soundAnswer(put{}, refusal)
}

// A marshalled has one, but no MarshalJSON.
type marshalled struct {
	fake
	Secret string
}

type printedSession struct {
	put
	Value string
}

func brokenContexts() []broken {
	return []broken{
		{"Answer has an error of its own", clauseObeys, func() authretry.Scheme {
			return &fake{answer: func(ctx context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
				if ctx.Err() != nil {
					return nil, errGaveUp
				}
				return soundAnswer(put{}, refusal)
			}}
		}, Options{}},
		{"Start has an error of its own", clauseObeys, startsWith(func(ctx context.Context, _ *http.Request) (authretry.Session, error) {
			if ctx.Err() != nil {
				return nil, errGaveUp
			}
			return put{}, nil
		}), Options{}},
		{"Authorize has an error of its own", clauseInTime, answering(func() authretry.Session {
			return put{func(req *http.Request) error {
				if req.Context().Err() != nil {
					return errGaveUp
				}
				return put{}.Authorize(req)
			}}
		}), Options{}},
		{"Carry has an error of its own", clauseCarry, answering(func() authretry.Session {
			return carrying{carry: func(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
				if ctx.Err() != nil {
					return nil, errGaveUp
				}
				return carriesOwn{}.Carry(ctx, base)
			}}
		}), Options{}},
		{"Answer waits for ever", clauseObeys, answering(func() authretry.Session { return put{} }), Options{limit: 400 * ms,
			Slow: before(func(context.Context, *authretry.Challenge, *http.Response) { select {} })}},
		{"Start waits for ever", clauseObeys, answering(func() authretry.Session { return put{} }), Options{limit: 400 * ms,
			Slow: startsWith(func(context.Context, *http.Request) (authretry.Session, error) { select {} })}},
		{"Authorize waits for ever", clauseInTime, answering(func() authretry.Session { return put{} }), Options{limit: 400 * ms,
			Slow: authorizing(func(*http.Request) { select {} })}},
		{"Learn waits for ever", clauseLearn, learnsBy(func(*http.Response, bool) (bool, error) { select {} }), Options{limit: 300 * ms}},
	}
}

// checkWithin returns the errors of Check, of which there must be some, all of them as expected. A limit that is shorter than the
// default is for what hangs. Where this machine is too slow for it, so that other things take longer, too, a longer one decides.
func checkWithin(t *testing.T, newScheme func() authretry.Scheme, o Options, isExpected func(error) bool) error {
	t.Helper()
	for {
		err := Check(newScheme, o)
		require.Error(t, err)
		unexpected := slices.DeleteFunc(slices.Clone(err.(interface{ Unwrap() []error }).Unwrap()), isExpected)
		if len(unexpected) > 0 && o.limit > 0 && o.limit < defaultLimit {
			o.limit *= 10
			continue
		}
		require.Empty(t, unexpected, "%v", err)
		return err
	}
}

// Each broken Scheme is found out, by the clause that it breaks and no other; an eighth of them, unless all is to be tried.
func TestBrokenSchemes(t *testing.T) {
	t.Parallel()
	shown := map[clause]bool{}
	for of, list := range map[string][]broken{
		"Name": brokenNames(), "Answer": brokenAnswers(), "Start": brokenStarts(), "Session": brokenSessions(),
		"Carrier": brokenCarriers(), "account": brokenAccounts(), "secret": brokenSecrets(), "context": brokenContexts(),
	} {
		for i, b := range list {
			shown[b.clause] = true
			if i%thorough.Or(1, 8) > 0 {
				continue
			}
			t.Run(of+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				if b.options.Server == nil && b.options.Accounts == nil {
					b.options.Server = server
				}
				b.options.Secrets = []string{secret}
				err := checkWithin(t, b.scheme, b.options, func(err error) bool {
					breach, ok := errors.AsType[*breach](err)
					return ok && breach.clause == b.clause
				})
				require.LessOrEqual(t, strings.Count(err.Error(), "\n"), 8, "it is said once: %v", err)
			})
		}
	}
	for _, c := range clauses {
		require.True(t, shown[c], "no Scheme breaks %v", c)
	}
}
