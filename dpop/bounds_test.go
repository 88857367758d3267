package dpop

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/showtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestNoncesAreBounded(t *testing.T) {
	n := &nonces{limit: 16}
	for i := range 100 {
		n.learn(fmt.Sprint("https://h", i), "n")
		require.Equal(t, "n", n.of(fmt.Sprint("https://h", i)))
		if i > 0 {
			require.Equal(t, "n", n.of("https://h0"), "what is in use stays")
		}
	}
	require.Len(t, n.known, 16)
	require.Empty(t, n.of("https://h1"))

	n = &nonces{}
	for i := range maxOrigins + 100 {
		n.learn(fmt.Sprint(i), "n")
	}
	require.Len(t, n.known, maxOrigins)
}

func TestNoTypePrintsASecret(t *testing.T) {
	token := &oauth2.Token{AccessToken: showtest.Secret, RefreshToken: showtest.Secret, TokenType: "DPoP"}
	key, err := NewKey(ed25519.NewKeyFromSeed([]byte((showtest.Secret + showtest.Secret)[:ed25519.SeedSize])))
	require.NoError(t, err)
	s := &Scheme{Source: &authretry.TokenSource{Initial: token}, Key: key}
	ahead, err := s.Start(context.Background(), &http.Request{})
	require.NoError(t, err)
	require.NoError(t, ahead.Authorize(&http.Request{URL: &url.URL{Scheme: "https", Host: "h"}, Header: http.Header{}}))
	showtest.Types(t, ".", map[string]any{
		"Key":    []any{key, *key},
		"Scheme": []any{s, ahead, &answer{session: ahead.(*session)}, &wrongKeyError{"a", "b"}},
	})
}

func TestSyntaxOfNonces(t *testing.T) {
	for _, good := range []string{"a", "!", "~", "#[]^", strings.Repeat("n", maxNonce)} {
		require.True(t, isNonce(good), good)
	}
	for _, bad := range []string{"", " ", `"`, `\`, "\x7f", "a\n", "é", strings.Repeat("n", maxNonce+1)} {
		require.False(t, isNonce(bad), bad)
	}
}

func TestAccountsMakeRoom(t *testing.T) {
	key := &Key{}
	source := func(refresh string, store authretry.TokenStore) sourcesFunc {
		return func(context.Context, string) (*authretry.TokenSource, *Key, error) {
			return &authretry.TokenSource{Store: store, Initial: &oauth2.Token{AccessToken: "a", RefreshToken: refresh}}, key, nil
		}
	}
	a := &accounts{limit: 8}
	only, err := a.of(context.Background(), "only copy", source("r", nil))
	require.NoError(t, err)
	for i := range 200 {
		_, err := a.of(context.Background(), fmt.Sprint(i), source("", nil))
		require.NoError(t, err)
	}
	require.Same(t, only, a.known("only copy"))
	require.LessOrEqual(t, len(a.all)-a.pinned, 8)
	require.Nil(t, a.known("0"))
	a.forget("only copy")
	require.Nil(t, a.known("only copy"))

	a = &accounts{limit: 8}
	stored, err := a.of(context.Background(), "stored", source("r", noStore{}))
	require.NoError(t, err)
	for i := range 200 {
		_, err := a.of(context.Background(), fmt.Sprint(i), source("", nil))
		require.NoError(t, err)
	}
	require.NotSame(t, stored, a.known("stored"), "others can go on with it")
	require.LessOrEqual(t, len(a.all), 16)
}

type noStore struct{ authretry.TokenStore }

func TestSourcesThatAreBad(t *testing.T) {
	for name, ask := range map[string]sourcesFunc{
		"panics":          func(context.Context, string) (*authretry.TokenSource, *Key, error) { panic("secret") },
		"returns nothing": func(context.Context, string) (*authretry.TokenSource, *Key, error) { return nil, nil, nil },
		"returns no key": func(context.Context, string) (*authretry.TokenSource, *Key, error) {
			return &authretry.TokenSource{}, nil, nil
		},
		"hangs": func(context.Context, string) (*authretry.TokenSource, *Key, error) {
			time.Sleep(time.Hour)
			return nil, nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &accounts{}
				_, err := a.of(t.Context(), "u", ask)
				require.ErrorContains(t, err, "dpop: Scheme.Sources")
				require.NotContains(t, err.Error(), "secret")
				require.Empty(t, a.all, "it is asked again")
				time.Sleep(2 * time.Hour) // for what hangs
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a := &accounts{}
		_, err := a.of(ctx, "u", func(ctx context.Context, _ string) (*authretry.TokenSource, *Key, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
	})
}
