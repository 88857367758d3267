package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// An issuer issues tokens for refresh tokens of which each is good once.
type issuer struct {
	mu      sync.Mutex
	fetches int
	reused  int
}

// granted returns the n-th token, which is good for an hour. The 0-th has expired.
func granted(n int) *oauth2.Token {
	t := &oauth2.Token{AccessToken: fmt.Sprintf("%s-a%d", secret, n), RefreshToken: fmt.Sprintf("%s-r%d", secret, n), Expiry: time.Now().Add(time.Hour)}
	if n == 0 {
		t.Expiry = time.Now().Add(-time.Hour)
	}
	return t
}

func (i *issuer) fetch(_ context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
	time.Sleep(50 * time.Millisecond)
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.Previous == nil || r.Previous.RefreshToken != granted(i.fetches).RefreshToken {
		i.reused++
		return nil, errors.New("another refresh token is expected")
	}
	i.fetches++
	return granted(i.fetches), nil
}

func (i *issuer) counts() (fetches, reused int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches, i.reused
}

// checkSources has many TokenSources find one expired token: one of them refreshes it, and what it is good for stays known.
func checkSources(k *check) {
	const sources = 16
	place := k.newPlace()
	s := k.storeAt(place)
	if !s.save(&authretry.Record{Token: granted(0), Scopes: []string{"s", "t"}, ClientID: "c"}) {
		return
	}
	var i issuer
	var all sync.WaitGroup
	for range sources {
		source := &authretry.TokenSource{Fetch: i.fetch, Store: k.storeAt(place)}
		all.Go(func() {
			t, err := source.Token()
			if s.look(err); err != nil || t.AccessToken != granted(1).AccessToken {
				k.broken(clauseOnce, "a TokenSource got another token than the one that was fetched, or an error: %v", err)
			}
		})
	}
	k.in(4*k.limit, clauseReturns, "TokenSource.Token", all.Wait)
	if fetches, reused := i.counts(); fetches != 1 || reused != 0 {
		k.broken(clauseOnce, "%d TokenSources have fetched %d tokens, and sent %d refresh tokens that had been used", sources, fetches, reused)
	}
	r := s.mustLoad()
	switch {
	case r == nil || r.Token == nil || r.Token.AccessToken != granted(1).AccessToken:
		k.broken(clauseSaves, "the token that a TokenSource has fetched is not there")
	case scopesOf(r) != "s t":
		k.broken(clauseWhole, "a token was good for %q, and after a refresh it is good for %q", "s t", scopesOf(r))
	}
}

// checkLogout ends logins, here and in other processes.
func checkLogout(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	tombstone := &authretry.Record{LoggedOut: true}
	if !s.save(k.numbered(1)) || !s.save(tombstone) {
		return
	}
	for _, reader := range []store{s, other, k.storeAt(place)} {
		reader.returns("a logout", tombstone)
	}
	if s.save(k.numbered(2)) {
		other.holds(clauseLogout, 2, "after a new login")
	}
	places := []string{k.newPlace(), k.newPlace()}
	var both sync.WaitGroup // each waits for a TokenSource to look into the store
	both.Go(func() {
		k.checkLogoutOfOthers(places[0], func() error {
			return (&authretry.TokenSource{Store: k.storeAt(places[0])}).Logout(context.Background())
		})
	})
	if !k.OneProcess {
		both.Go(func() {
			k.checkLogoutOfOthers(places[1], func() error {
				c := k.start(job{Role: "log out", Place: places[1]})
				defer c.kill()
				if line, ok := c.next(clauseReturns); ok {
					return errors.New(line)
				}
				return nil
			})
		})
	}
	both.Wait()
	if k.IsStopped() {
		return
	}
	k.checkVanishedLogin()
}

// checkLogoutOfOthers has logOut end a login that a TokenSource has in its memory.
func (k *check) checkLogoutOfOthers(place string, logOut func() error) {
	s := k.storeAt(place)
	if !s.save(&authretry.Record{Token: granted(0)}) {
		return
	}
	var i issuer
	source := &authretry.TokenSource{Fetch: i.fetch, Store: k.storeAt(place), MinRefreshInterval: -1}
	t, err := source.Token()
	if s.look(err); err != nil {
		k.broken(clauseOnce, "a TokenSource got no token: %v", err)
		return
	}
	if err := logOut(); err != nil {
		s.look(err)
		k.broken(clauseLogout, "Logout failed: %v", err)
		return
	}
	for name, get := range map[string]func() (*oauth2.Token, error){
		"that has a token in its memory": func() (*oauth2.Token, error) { return source.Refresh(context.Background(), t) },
		"with an Initial": func() (*oauth2.Token, error) {
			initial := granted(7)
			return (&authretry.TokenSource{Fetch: i.fetch, Store: k.storeAt(place), Initial: initial}).Token()
		},
	} {
		_, err := get()
		if s.look(err); !errors.Is(err, authretry.ErrLoginRequired) {
			k.broken(clauseLogout, "a TokenSource %s does not notice that the login was ended: %v", name, err)
		}
		if r := s.mustLoad(); r == nil || !r.LoggedOut {
			k.broken(clauseLogout, "a TokenSource %s brings back a login that was ended", name)
		}
	}
	if fetches, _ := i.counts(); fetches != 1 {
		k.broken(clauseLogout, "a refresh token was sent after the login was ended")
	}
	if err := (&authretry.TokenSource{Store: k.storeAt(place)}).Set(granted(9)); err != nil {
		s.look(err)
		k.broken(clauseLogout, "TokenSource.Set failed after the login was ended: %v", err)
		return
	}
	var again *oauth2.Token
	for end := time.Now().Add(k.limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // it looks there now and then
		if again, err = source.Token(); err == nil {
			break
		}
	}
	if s.look(err); err != nil || again.AccessToken != granted(9).AccessToken {
		k.broken(clauseLogout, "a TokenSource does not go on with a new login: %v", err)
	}
}

// checkVanishedLogin has a Record vanish that a TokenSource has in its memory: it writes it back.
func (k *check) checkVanishedLogin() {
	if k.Remove == nil {
		return
	}
	place := k.newPlace()
	s := k.storeAt(place)
	if !s.save(&authretry.Record{Token: granted(0)}) {
		return
	}
	var i issuer
	source := &authretry.TokenSource{Fetch: i.fetch, Store: k.storeAt(place), MinRefreshInterval: -1}
	t, err := source.Token()
	if s.look(err); err != nil {
		k.broken(clauseOnce, "a TokenSource got no token: %v", err)
		return
	}
	if !k.meddle("Remove", func(ctx context.Context) error { return k.Remove(ctx, place) }) {
		return
	}
	t, err = source.Refresh(context.Background(), t)
	if s.look(err); err != nil || t.AccessToken != granted(2).AccessToken {
		k.broken(clauseVanished, "a TokenSource does not go on with the token in its memory after the Record has vanished: %v", err)
		return
	}
	if r := s.mustLoad(); r == nil || r.Token == nil || r.Token.AccessToken != granted(2).AccessToken {
		k.broken(clauseVanished, "a TokenSource does not write its token back after the Record has vanished")
	}
}

// A loginLocker is a store that has one person asked at a time.
type loginLocker interface {
	LockLogin(ctx context.Context) (unlock func(), err error)
}

// checkLoginLock checks LockLogin, if there is one.
func checkLoginLock(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	a, ok := s.TokenStore.(loginLocker)
	b, ok2 := other.TokenStore.(loginLocker)
	if !ok || !ok2 {
		return
	}
	lock := func(l loginLocker, ctx context.Context, limit time.Duration) (unlock func(), err error) {
		k.in(limit, clauseLoginLock, "LockLogin", func() { unlock, err = l.LockLogin(ctx) })
		s.look(err)
		return unlock, err
	}
	keptOut := func(by string) {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond+2*k.LockTTL)
		defer cancel()
		if _, err := lock(b, ctx, k.limit); !errors.Is(err, context.DeadlineExceeded) {
			k.broken(clauseLoginLock, "LockLogin does not keep out others than %s, or not until their context ends: %v", by, err)
		}
		if err := other.updateWithin(k.limit, clauseLoginLock, context.Background(), saving(k.numbered(1))); err != nil {
			k.broken(clauseLoginLock, "Update failed while somebody logs in: %v", err)
		}
	}
	unlock, err := lock(a, context.Background(), k.limit)
	if err != nil {
		k.broken(clauseLoginLock, "LockLogin failed: %v", err)
		return
	}
	keptOut("the same process")
	unlock()
	unlock()
	if unlock, err = lock(b, context.Background(), k.limit); err != nil {
		k.broken(clauseLoginLock, "LockLogin failed after unlock: %v", err)
		return
	}
	unlock()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := lock(a, ended, k.limit); !errors.Is(err, context.Canceled) {
		k.broken(clauseLoginLock, "LockLogin under a context that had ended: %v", err)
	}
	if k.OneProcess {
		return
	}
	c := k.start(job{Role: "lock login", Place: place})
	defer c.kill()
	if !c.says(clauseLoginLock, "locked") {
		return
	}
	keptOut("another process")
	c.kill()
	if unlock, err = lock(b, context.Background(), k.LockTTL+k.limit); err != nil {
		k.broken(clauseLoginLock, "LockLogin failed after a process that had it was killed: %v", err)
		return
	}
	unlock()
}
