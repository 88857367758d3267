package negotiate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry/internal/showtest"
	"github.com/stretchr/testify/require"
)

func nobodys(context.Context, string) (Kerberos, error) { return nil, errors.New("nobody's") }

// Accounts is asked once for each account, however many want it; an error is not kept, nor what was forgotten; and a panic, or nothing
// at all, is an error.
func TestAccountsIsAskedOnce(t *testing.T) {
	var m memory
	var asked atomic.Int32
	answer := make(chan struct{})
	ask := func(ctx context.Context, account string) (Kerberos, error) {
		asked.Add(1)
		<-answer
		return &Client{Principal: account}, nil
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.account(cancelled, "alice", ask)
	require.ErrorIs(t, err, context.Canceled)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			k, err := m.account(t.Context(), "alice", ask)
			if err != nil || k.(*Client).Principal != "alice" {
				t.Error(k, err)
			}
		})
	}
	close(answer)
	callers.Wait()
	require.EqualValues(t, 1, asked.Load())
	_, err = m.account(t.Context(), "bob", ask)
	require.NoError(t, err)
	m.forget("alice")
	_, err = m.account(t.Context(), "alice", ask)
	require.NoError(t, err)
	require.EqualValues(t, 3, asked.Load())

	for text, bad := range map[string]func(context.Context, string) (Kerberos, error){
		"nobody's":                           nobodys,
		"neither a Kerberos nor an error":    func(context.Context, string) (Kerberos, error) { return nil, nil },
		"has panicked with a string":         func(context.Context, string) (Kerberos, error) { panic(showtest.Secret) },
		"was called has ended its goroutine": func(context.Context, string) (Kerberos, error) { runtime.Goexit(); return nil, nil },
	} {
		for range 2 {
			_, err = m.account(t.Context(), "carol", bad)
			require.ErrorContains(t, err, text)
			require.NotContains(t, err.Error(), showtest.Secret)
		}
	}
	for i := range maxAccounts + 10 {
		_, err := m.account(t.Context(), fmt.Sprint(i), ask)
		require.NoError(t, err)
	}
	require.Equal(t, maxAccounts, m.accounts.Len())
}

func TestNoTypePrintsASecret(t *testing.T) {
	k := newTestKDC(t, testSPN)
	k.add("alice", showtest.Secret)
	c := k.client("alice")
	c.Password = showtest.Secret
	s := &Scheme{Kerberos: c, Ahead: true}
	status, _ := get(t, to(newTestService(k), s), testURL)
	require.Equal(t, 200, status)
	one, err := s.Start(t.Context(), newRequest(t, testURL))
	require.NoError(t, err)
	carriedBy := &carried{one.(*session), "alice", &s.memory.carriers}
	k.add("dave", "another password")
	wrong := k.client("dave")
	wrong.Password = showtest.Secret
	_, refused := wrong.Token(t.Context(), testSPN)
	require.ErrorContains(t, refused, "wrong")
	unwrapped := []any{s, one, carriedBy}
	for err := refused; err != nil; err = errors.Unwrap(err) {
		unwrapped = append(unwrapped, err)
	}
	showtest.Types(t, ".", map[string]any{"Client": []any{c, wrong}, "Scheme": unwrapped}, "Kerberos", "Renewer")
}
