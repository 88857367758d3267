//go:build unix

package redisstore

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// answering is a client that answers each script without a Redis.
type answering struct {
	redis.Scripter
	answer func(ctx context.Context) (any, error)
}

func (a answering) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	return redis.NewCmdResult(a.answer(ctx))
}

// Whose context has ended asks Redis nothing any more.
func TestNothingIsSentAfterTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) { sent++; return nil, redis.Nil }}}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, sent)
		cancel()
		_, err = s.Load(ctx)
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Equal(t, 1, sent)
	})
}

// endsLate is a context that ends a moment after its deadline.
type endsLate struct {
	context.Context
	deadline time.Time
}

func (c endsLate) Deadline() (time.Time, bool) { return c.deadline, true }

// A connection that goes by the deadline fails a moment before the context ends. That is the end of the context all the same.
func TestErrorAtTheDeadlineIsTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) { return nil, errors.New("i/o timeout") }}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := s.Load(endsLate{ctx, time.Now()})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = update(s, endsLate{ctx, time.Now()}, mustNotRun(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = s.Load(endsLate{t.Context(), time.Now().Add(time.Hour)})
		require.ErrorContains(t, err, "i/o timeout")
	})
}

// What no script of ours returns is an error, and no lock.
func TestAnswerThatIsNone(t *testing.T) {
	for _, answer := range []any{nil, "OK", int64(1), []any{}, []any{int64(1)}, []any{int64(1), nil, nil}} {
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) { return answer, nil }}}
		_, err := update(s, t.Context(), mustNotRun(t))
		require.ErrorContains(t, err, "has returned what it does not return", "%v", answer)
	}
}

// What Redis answers at the moment when the lock may have expired counts for nothing.
func TestAnswerAtTheEndOfTheLimitIsNone(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			s := &Store{Key: testKey, LockTTL: time.Second}
			s.Client = answering{answer: func(context.Context) (any, error) { time.Sleep(s.LockTTL); return int64(1), nil }}
			require.ErrorIs(t, (&lock{store: s, id: "x"}).extend(t.Context(), s.LockTTL), errNoAnswer)
		})
	}
}

// A lock that is asked for in vain is released when the client has given up, too: before that, it may not have been taken yet.
func TestReleaseWaitsForTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var did []string
		s := &Store{Key: testKey}
		s.Client = answering{answer: func(context.Context) (any, error) {
			if len(did) > 0 {
				did = append(did, "released")
				return int64(1), nil
			}
			did = append(did, "asked")
			time.Sleep(time.Second)
			did = append(did, "taken")
			return []any{int64(1), nil}, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := update(s, ctx, mustNotRun(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"asked", "taken", "released"}, did)
	})
}

// So is one for which the connection broke: Redis may have given it all the same.
func TestLockWithoutAnAnswerIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) {
			if asked++; asked == 1 {
				return nil, io.EOF
			}
			return int64(1), nil
		}}}
		_, err := update(s, t.Context(), mustNotRun(t))
		require.ErrorIs(t, err, io.EOF)
		synctest.Wait()
		require.Equal(t, 2, asked)
	})
}

// Who asks for a lock that another one has does so again soon, and less and less often.
func TestLockIsAskedForAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, start := 0, time.Now()
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) {
			if asked++; asked <= 5 {
				return []any{int64(0), nil}, nil
			}
			return []any{int64(1), nil}, nil
		}}}
		_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return nil, nil })
		require.NoError(t, err)
		require.Less(t, time.Since(start), time.Second)
	})
}

// A login that is enough ends the wait, whether it is there while another one has the lock, or when that is free at last.
func TestLoginThatIsEnoughEndsTheWait(t *testing.T) {
	data, err := record("new").Encode()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		answers []any // the last one again and again
		asked   int
	}{
		"taken for ever":   {[]any{[]any{int64(0), string(data)}}, 1},
		"stored meanwhile": {[]any{[]any{int64(0), nil}, []any{int64(0), string(data)}}, 2},
		"free, and stored": {[]any{[]any{int64(0), nil}, []any{int64(1), string(data)}, int64(1)}, 3}, // and released
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) {
					asked++
					return c.answers[min(asked, len(c.answers))-1], nil
				}}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := s.UpdateUnless(ctx, func(current *authretry.Record) bool { return current != nil && current.Token.AccessToken == "new" },
					func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
						t.Error("another one has done it")
						return nil, nil
					})
				require.NoError(t, err)
				require.Equal(t, c.asked, asked)
			})
		})
	}
}

// While one asks for all, another one waits for no longer than it likes. If asking fails, it fails for all: they do not ask one
// after the other.
func TestOneAsksForAll(t *testing.T) {
	for name, c := range map[string]struct {
		limit time.Duration
		want  error
		after time.Duration
	}{
		"until it is late": {time.Second, errOthersWait, time.Second},
		"in vain":          {time.Minute, io.EOF, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) {
					time.Sleep(2 * time.Second)
					return nil, io.EOF
				}}}
				first := make(chan error)
				go func() {
					_, err := update(s, context.Background(), mustNotRun(t))
					first <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), c.limit)
				defer cancel()
				start := time.Now()
				_, err := update(s, ctx, mustNotRun(t))
				require.ErrorIs(t, err, c.want)
				require.Equal(t, c.after, time.Since(start))
				require.ErrorIs(t, <-first, io.EOF)
				time.Sleep(time.Minute) // for what releases the lock that may have been taken
			})
		})
	}
}

// What the one who asks gets to know, the others do, too, also if it is no end of its own wait.
func TestOneAsksForThoseWithOtherNeeds(t *testing.T) {
	data, err := record("new").Encode()
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		s := &Store{Key: testKey, Client: answering{answer: func(context.Context) (any, error) { return []any{int64(0), string(data)}, nil }}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		first := make(chan error)
		go func() {
			_, err := update(s, ctx, mustNotRun(t))
			first <- err
		}()
		synctest.Wait()
		limited, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		require.NoError(t, s.UpdateUnless(limited, func(current *authretry.Record) bool { return current.Token.AccessToken == "new" },
			func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
				return nil, errors.New("no")
			}))
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		time.Sleep(time.Minute)
	})
}
