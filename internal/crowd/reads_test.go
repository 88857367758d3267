package crowd

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A thousand who read at once need two reads: one that has begun before some of them came, and one after. Each sees what was there when
// it came.
func TestReadsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads Reads[string, int]
		var there, gets atomic.Int32
		get := func(context.Context) (int, error) {
			gets.Add(1)
			seen := there.Load()
			time.Sleep(10 * time.Millisecond)
			return int(seen), nil
		}
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				time.Sleep(time.Duration(i%10) * time.Millisecond)
				before := there.Add(1)
				seen, err := reads.Do(t.Context(), "x", get)
				require.NoError(t, err)
				require.GreaterOrEqual(t, seen, int(before))
			})
		}
		all.Wait()
		require.EqualValues(t, 2, gets.Load())
		require.Empty(t, reads.all, "nothing stays")
	})
}

// A reader that is called off, one that panics and one that hangs are no harm to others, and an error is shared.
func TestReadsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads Reads[string, int]
		began := time.Now()
		calledOff, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_, err := reads.Do(calledOff, "x", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		all.Go(func() {
			require.Panics(t, func() { _, _ = reads.Do(t.Context(), "y", func(context.Context) (int, error) { panic("y") }) })
		})
		all.Go(func() {
			_, _ = reads.Do(t.Context(), "z", func(context.Context) (int, error) { <-release; return 0, nil })
		})
		synctest.Wait()
		broken := errors.New("broken")
		for key, took := range map[string]time.Duration{"x": time.Millisecond, "y": 0, "z": patience} {
			all.Go(func() {
				_, err := reads.Do(t.Context(), key, func(context.Context) (int, error) { return 0, broken })
				require.ErrorIs(t, err, broken)
				require.Equal(t, took, time.Since(began), key)
			})
		}
		all.Go(func() {
			_, err := reads.Do(calledOff, "z", func(context.Context) (int, error) { return 1, nil })
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		time.Sleep(time.Minute)
		close(release)
		all.Wait()
		require.Empty(t, reads.all)
	})
}
