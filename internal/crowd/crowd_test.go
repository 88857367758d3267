package crowd

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A hundred wait for one thing. One of them asks, and tells the others, who never ask.
func TestOneAsksForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var crowds Crowds[string, int]
		asked := 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				g, news := crowds.Join("x")
				defer g.Leave(news)
				for n := 0; n < 3; {
					told, turn, _, err := g.Await(t.Context(), news)
					require.NoError(t, err)
					if !turn {
						n = told
						continue
					}
					if time.Sleep(time.Second); g.Last() < 3 {
						asked++
						g.Tell(g.Mark(), asked)
					}
					<-g.turn
				}
			})
		}
		all.Wait()
		require.Equal(t, 3, asked)
		n, _ := crowds.Look("x")
		require.Zero(t, n)
		require.Empty(t, crowds.all, "nothing stays")
	})
}

// Who waits while another one asks hears the news of that one, rather than to get the turn and ask again.
func TestNewsComeBeforeTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var crowds Crowds[string, int]
		g, mine := crowds.Join("x")
		_, turn, waited, err := g.Await(t.Context(), mine)
		require.NoError(t, err)
		require.Equal(t, []bool{true, false}, []bool{turn, waited})
		for range 100 {
			_, told := crowds.Join("x")
			go func() {
				n, turn, waited, err := g.Await(t.Context(), told)
				assert.NoError(t, err)
				assert.Equal(t, []bool{false, true}, []bool{turn, waited})
				assert.Equal(t, 7, n)
				g.Leave(told)
			}()
		}
		synctest.Wait()
		g.Tell(g.Mark(), 7)
		<-mine // who asks has no need of it
		g.EndTurn(mine)
		synctest.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, other := crowds.Join("x")
		_, turn, _, err = g.Await(t.Context(), other)
		require.NoError(t, err)
		require.True(t, turn)
		_, turn, waited, err = g.Await(ended, other)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []bool{false, true}, []bool{turn, waited})
	})
}

func TestTheLastNewsCount(t *testing.T) {
	var crowds Crowds[string, int]
	g, news := crowds.Join("x")
	other, _ := crowds.Join("y")
	require.NotSame(t, g, other)
	g.Tell(g.Mark(), 1)
	g.Tell(g.Mark(), 2)
	g.TellUnless(func(last int) bool { return last == 2 }, g.Mark(), 3)
	require.Equal(t, 2, <-news)
	require.Empty(t, news)
	require.Equal(t, 2, g.Last())
	later, laterNews := crowds.Join("x")
	require.Same(t, g, later)
	require.Empty(t, laterNews, "who comes later has seen for itself")
	at := g.Mark()
	_, latest := crowds.Join("x")
	g.Tell(at, 4)
	require.Equal(t, []int{4, 4}, []int{<-news, <-laterNews})
	require.Empty(t, latest, "what was read before it came is not for it")
	n, last := crowds.Look("x")
	require.Equal(t, []int{3, 4}, []int{n, last})
}

// What one of a crowd has started ends with the last one, and the next crowd starts it again.
func TestCrowdThatHasGone(t *testing.T) {
	var crowds Crowds[string, int]
	g, a := crowds.Join("x")
	_, b := crowds.Join("x")
	started := 0
	g.Once.Do(func() { started++ })
	g.Leave(a)
	g.Leave(a)
	require.NoError(t, g.Context.Err())
	g.Leave(b)
	require.Error(t, g.Context.Err())
	next, _ := crowds.Join("x")
	require.NotSame(t, g, next)
	next.Once.Do(func() { started++ })
	require.Equal(t, 2, started)
	g.Leave(b)
	n, _ := crowds.Look("x")
	require.Equal(t, 1, n, "who leaves twice takes nobody along")
}
