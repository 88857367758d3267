package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A token that is good stays in use if a refresh in the background brings nothing but a refresh token.
func TestGoodTokenOutlivesAnAnswerOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: &oauth2.Token{AccessToken: "good", RefreshToken: "R0", Expiry: time.Now().Add(time.Hour)},
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{RefreshToken: r.Previous.RefreshToken + "x"}, errors.New("wrong token type")
			}}
		_, _ = src.Token()
		time.Sleep(56 * time.Minute)
		_, _ = src.Token() // starts the refresh in the background
		time.Sleep(time.Second)
		got, err := src.Token()
		require.NoError(t, err, "good for 4 min more")
		require.Equal(t, "good", got.AccessToken)
	})
}

// Or a step-up does; and OnToken gets no token without an access token.
func TestGoodTokenOutlivesAStepUpOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		src := &TokenSource{Initial: withScope(old(), "a"), OnToken: func(t *oauth2.Token) { seen = append(seen, t.AccessToken) },
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				if len(r.Scopes) > 1 {
					return &oauth2.Token{RefreshToken: "R1"}, errors.New("no such scope")
				}
				return nil, refusal(503, "")
			}}
		_, _ = src.Token()
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.Error(t, err)
		got, err := src.Token()
		require.NotContains(t, seen, "", "OnToken")
		require.NoError(t, err)
		require.Equal(t, "old", got.AccessToken)
	})
}

// Such an answer, even a late one, is a failure as others are.
func TestAnswerOfNoUseKeepsTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		src := &TokenSource{Initial: &oauth2.Token{AccessToken: "good", RefreshToken: "R0"}, FetchTimeout: time.Second,
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				i := n.Add(1)
				time.Sleep(1010 * time.Millisecond)
				return &oauth2.Token{RefreshToken: fmt.Sprint("R", i)}, errors.New("junk")
			}}
		_, _ = src.Token()
		end := time.Now().Add(2 * time.Minute)
		for time.Now().Before(end) {
			_, _ = src.Token()
			_, _ = src.Refresh(t.Context(), nil)
			time.Sleep(20 * time.Millisecond)
		}
		require.LessOrEqual(t, n.Load(), int32(20), "the delay grows to 30 s")
	})
}

// But a new refresh token is tried, whatever was said of the one before.
func TestNewRefreshTokenIsTriedAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			sent = append(sent, r.Previous.RefreshToken)
			if len(sent) == 1 {
				return &oauth2.Token{RefreshToken: "R1"}, refusal(400, "invalid_grant")
			}
			return &oauth2.Token{AccessToken: "new", RefreshToken: "R2"}, nil
		}}
		_, _ = src.Refresh(t.Context(), nil)
		time.Sleep(time.Hour)
		_, err := src.Token()
		require.NoError(t, err, "%v", sent)
	})
}

// Where a refresh token comes from is known, whatever it came with.
func TestOriginOfARefreshTokenIsKept(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"token_type":"Bearer","refresh_token":"R1"}`)
	}))
	defer srv.Close()
	e := &TokenEndpoint{URL: srv.URL, ClientID: "c"}
	src := &TokenSource{Initial: WithRecord(&oauth2.Token{AccessToken: "x", RefreshToken: "R0"}, Record{TokenURL: srv.URL, ClientID: "c", Extra: map[string]string{"k": "v"}}), Fetch: e.Refresh()}
	_, err := src.Refresh(t.Context(), nil)
	require.Error(t, err)
	k := src.current.Load().token
	require.Equal(t, "R1", k.RefreshToken)
	require.Equal(t, srv.URL, RecordOf(k).TokenURL)
}

// A refresh token of one issuer does not become that of another, whose answer had none.
func TestRefreshTokenIsNotThatOfAnotherIssuer(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = append(got, r.Form.Get("refresh_token"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"token_type":"Bearer","access_token":"y","expires_in":1}`)
	}))
	defer srv.Close()
	e := &TokenEndpoint{URL: srv.URL, ClientID: "c"}
	src := &TokenSource{Initial: WithRecord(&oauth2.Token{AccessToken: "x", RefreshToken: "R0"}, Record{TokenURL: "https://other.example", ClientID: "c"}),
		Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			t, err := e.Refresh()(ctx, r)
			if err != nil {
				t, err = e.ClientCredentials()(ctx, r)
			}
			return t, err
		}}
	for range 2 {
		_, _ = src.Refresh(t.Context(), nil)
	}
	require.NotContains(t, got, "R0", "which other.example has issued")
}
