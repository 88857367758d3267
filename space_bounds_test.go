package authretry

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// leaseOf returns a Session that has just answered a challenge.
func leaseOf(s Session, scheme int32, realm string) *lease {
	return &lease{held{Session: s}, &protectionSpace{scheme: scheme, realm: realm}}
}

func spacesOf(account, host string) spacesKey {
	return spacesKey{account, origin{scheme: "https", host: host, port: "443"}}
}

func urlOf(t testing.TB, text string) *url.URL {
	u, err := url.Parse(text)
	require.NoError(t, err)
	return u
}

// requireCounted checks that the sizes are those of what there is, and that no account is known that has nothing.
func requireCounted(t *testing.T, s *spaces) {
	t.Helper()
	sum := 0
	accounts := map[string]int{}
	for _, k := range s.known {
		size := sizeOfOrigin + len(k.key.account) + len(k.key.host)
		for _, sp := range k.spaces {
			size += sp.size()
		}
		require.Equal(t, size, k.size)
		sum += size
		if k.key.account != "" {
			accounts[k.key.account]++
		}
	}
	require.EqualValues(t, sum, s.size.Load())
	require.EqualValues(t, len(s.known), s.count.Load())
	require.Len(t, s.first, len(accounts))
	for account, n := range accounts {
		for k := s.first[account]; k != nil; k = k.next {
			n--
		}
		require.Zero(t, n, account)
	}
}

// What is dropped to make room leaves nothing behind, and is what has not been used for long.
func TestWhatIsInUseOutlivesWhatIsNot(t *testing.T) {
	s := &spaces{limit: 16 * (sizeOfOrigin + sizeOfSpace + sizeOfSession + 100)}
	use := spacesOf("daily", "api.test")
	u := urlOf(t, "https://api.test/")
	require.True(t, s.keep(use, u, leaseOf(word{}, 0, ""), 0))
	for i := range 2_000 {
		// Of 16 that are looked at, the oldest goes; there are about as many.
		s.keep(spacesOf(fmt.Sprint("once-", i), "api.test"), u, leaseOf(word{}, 0, ""), 0)
		l, _, _ := s.lend(use, u)
		require.NotNil(t, l.Session, "after %d others", i)
	}
	requireCounted(t, s)
	for range 2_000 { // several origins of an account, which are in one list
		key := spacesOf(fmt.Sprint("a", rand.IntN(4)), fmt.Sprint("host", rand.IntN(40)))
		s.keep(key, u, leaseOf(word{}, 0, ""), 0)
		requireCounted(t, s)
	}
	require.LessOrEqual(t, s.size.Load(), s.limit)
}

// The connections of a Carrier take more room than its Session.
func TestCarrierCountsForItsConnections(t *testing.T) {
	h := held{Session: word{}}
	plain := h.size()
	h.by = &carried{RoundTripper: http.DefaultTransport}
	require.GreaterOrEqual(t, h.size()-plain, 16<<10)
}

// Where nothing else is said, 64 MiB is too much for the sources of all accounts.
func TestSourcesOfAccountsAreBounded(t *testing.T) {
	a := &accountSources{size: 64 << 20} // as if there were as many
	for _, account := range []string{"alice", "bob"} {
		_, err := a.of(t.Context(), account, func(context.Context, string) (oauth2.TokenSource, error) { return new(TokenSource), nil })
		require.NoError(t, err)
	}
	require.Contains(t, a.known, "bob")
	require.NotContains(t, a.known, "alice", "made room")
}

// So it is for what is remembered of all origins.
func TestSpacesOfOriginsAreBounded(t *testing.T) {
	s := new(spaces)
	s.size.Store(64 << 20) // as if there were as much
	for _, host := range []string{"a.test", "b.test"} {
		s.keep(spacesOf("", host), urlOf(t, "https://"+host+"/"), leaseOf(word{}, 0, ""), 0)
	}
	require.Len(t, s.known, 0, "both made room, and not enough")
	s.size.Store(0)
	for i := range 100 {
		s.keep(spacesOf("", "api.test"), urlOf(t, "https://api.test/"), leaseOf(word{}, 0, fmt.Sprint("realm", i)), 0)
	}
	require.Len(t, s.of(spacesOf("", "api.test")).spaces, 32)
	long := leaseOf(word{}, 0, strings.Repeat("r", 2_000))
	require.False(t, s.keep(spacesOf("", "api.test"), urlOf(t, "https://api.test/"), long, 0))
	requireCounted(t, s)
}

// Those who ask at the same time for what is not known yet get the same.
func TestSpacesOfAnOriginAreMadeOnce(t *testing.T) {
	for range 50 {
		s := new(spaces)
		var found sync.Map
		var begun, all sync.WaitGroup
		s.mu.Lock()
		begun.Add(8)
		for i := range 8 {
			all.Go(func() {
				begun.Done()
				found.Store(i, s.at(spacesOf("u", "api.test")))
			})
		}
		begun.Wait()
		for range 8 {
			runtime.Gosched()
		}
		s.mu.Unlock()
		all.Wait()
		first, _ := found.Load(0)
		found.Range(func(_, k any) bool { require.Same(t, first, k); return true })
		requireCounted(t, s)
	}
}

// While others drop the last of what there is, it is counted without being there.
func TestNothingIsDroppedWhereThereIsNothing(t *testing.T) {
	s := &spaces{limit: 1}
	s.size.Store(2)
	s.shrink()
	require.EqualValues(t, 2, s.size.Load())
}

// What was lent is not kept in a space that has been forgotten meanwhile, and whoever keeps it is told.
func TestForgottenSpaceTakesNothingBack(t *testing.T) {
	u := urlOf(t, "https://api.test/")
	key := spacesOf("u", "api.test")
	for name, forget := range map[string]func(s *spaces, l *lease){
		"the space":   func(s *spaces, l *lease) { s.forget(key, l) },
		"the account": func(s *spaces, _ *lease) { s.forgetAccount("u") },
	} {
		t.Run(name, func(t *testing.T) {
			s := new(spaces)
			require.True(t, s.keep(key, u, leaseOf(exclusiveWord{}, 0, ""), 0))
			l, _, _ := s.lend(key, u)
			require.NotNil(t, l.Session)
			forget(s, &l)
			require.False(t, s.keep(key, u, &l, 0))
			requireCounted(t, s)
			l, _, _ = s.lend(key, u)
			require.Nil(t, l.Session)
		})
	}
}

// No more Sessions are kept than may be out at once, and none is counted that is not kept.
func TestIdleSessionsAreBounded(t *testing.T) {
	s := new(spaces)
	u, key := urlOf(t, "https://api.test/"), spacesOf("", "api.test")
	fresh := leaseOf(exclusiveWord{}, 0, "")
	for range 64 {
		require.True(t, s.keep(key, u, fresh, 0))
	}
	k := s.of(key)
	k.counts = true
	var visits []visit
	for range 20 {
		visits = append(visits, k.enter())
	}
	visits[0].crowded()
	require.EqualValues(t, 5, k.bound)
	require.Len(t, k.spaces[0].idle, 5)
	requireCounted(t, s)
	require.False(t, s.keep(key, u, fresh, 0), "as many as may be out are idle")
	requireCounted(t, s)

	k.bound = 0
	idle := &k.spaces[0].idle
	for len(*idle) < 1<<14 {
		*idle = append(*idle, fresh.held)
	}
	require.False(t, s.keep(key, u, fresh, 0))
	require.Len(t, *idle, 1<<14)
}

// One request that is refused is no crowd, nor are two that follow each other.
func TestOneRequestIsNoCrowd(t *testing.T) {
	k := &originSpaces{all: new(spaces), crowd: crowd{counts: true}}
	for range 3 {
		v := k.enter()
		require.False(t, v.crowded())
		v.end(true)
	}
	v := k.enter()
	require.False(t, v.crowded(), "although the last one was accepted")
	require.Zero(t, k.bound)
}

// A server that challenges each path does not fill the memory.
func TestScopesAreBounded(t *testing.T) {
	s := new(spaces)
	key := spacesOf("", "api.test")
	for i := range 3_000 {
		u := urlOf(t, fmt.Sprintf("https://api.test/%d/x", i))
		require.True(t, s.keep(key, u, leaseOf(word{}, 0, ""), 0))
		l, _, exact := s.lend(key, u)
		require.NotNil(t, l.Session)
		require.True(t, exact, "the latest is there")
	}
	require.Len(t, s.of(key).spaces[0].scopes, 1_024)
	require.True(t, s.keep(key, urlOf(t, "https://api.test/"+strings.Repeat("x/", 1_024)), leaseOf(word{}, 0, ""), 0))
	for scope := range s.of(key).spaces[0].scopes {
		require.LessOrEqual(t, len(scope), 1_024)
	}
	requireCounted(t, s)
}

// Forget is for the one user, too, where there are no accounts.
func TestForgetWithoutAccounts(t *testing.T) {
	asked := 0
	transport := &Transport{Base: answering(`Basic realm="x"`), Schemes: []Scheme{&Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) {
		asked++
		return "u", "p", nil
	}}}}
	for _, want := range []int{1, 1, 2} {
		if want == 2 {
			transport.Forget("")
		}
		roundTrip(t, transport, "https://api.example.com/")
		require.Equal(t, want, asked)
	}
	requireCounted(t, &transport.auth.spaces)
}

// Of a host that is too long to be remembered, nobody counts what is out.
func TestLongHostsAreNoCrowd(t *testing.T) {
	s := new(spaces)
	require.Zero(t, s.enter(spacesOf("", strings.Repeat("x", 2_000))))
	require.Empty(t, s.known)
	require.NotZero(t, s.enter(spacesOf("", strings.Repeat("x", maxHost))))
}

// A Covers that panics while a request ends, and would make room for one that waits, does not take that one along.
func TestCoversThatPanicsHarmsNobodyWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := atomic.Bool{}
		k := &originSpaces{all: &spaces{}}
		k.counts, k.bound, k.here = true, 2, 3 // two are out, and one more has just come
		k.spaces = []*protectionSpace{{latest: held{Session: panicsOnce{&panics}}}}
		u, err := url.Parse("https://api.test/")
		require.NoError(t, err)
		waits := make(chan any)
		go func() {
			defer func() { waits <- recover() }()
			visit{at: k}.await(context.Background(), u, lease{})
		}()
		synctest.Wait()
		panics.Store(true)
		require.Panics(t, func() { visit{at: k}.end(true) })
		require.Nil(t, <-waits)
		require.EqualValues(t, 2, k.here, "it went when its time was up")
	})
}

type panicsOnce struct{ on *atomic.Bool }

func (panicsOnce) Exclusive()                    {}
func (panicsOnce) Authorize(*http.Request) error { return nil }
func (p panicsOnce) Covers(*url.URL) bool {
	if p.on.Swap(false) {
		panic("covers")
	}
	return true
}

// What is added for an account that was forgotten meanwhile counts towards the bound as all else does.
func TestForgottenAccountsKeepTheBound(t *testing.T) {
	s := &spaces{limit: 4 * sizeOfOrigin}
	u := urlOf(t, "https://api.test/")
	for i := range 100 {
		key := spacesOf(strconv.Itoa(i), "api.test")
		before := s.changesOf(key.account).Load()
		s.forgetAccount(key.account)
		require.False(t, s.keep(key, u, leaseOf(panicsOnce{new(atomic.Bool)}, 0, ""), before))
		require.LessOrEqual(t, s.size.Load(), s.limit)
	}
}

// Nothing was sent with an empty lease, as that of a CONNECT without credentials: its refusal says nothing of any Scheme or space.
func TestRefusalOfNothingForgetsNothing(t *testing.T) {
	s := &spaces{}
	u := urlOf(t, "https://api.test/")
	key := spacesOf("", "api.test")
	require.True(t, s.keep(key, u, leaseOf(panicsOnce{new(atomic.Bool)}, 0, ""), 0))
	s.forget(key, &lease{})
	require.Len(t, s.of(key).spaces, 1)
	s.forget(key, leaseOf(panicsOnce{new(atomic.Bool)}, 0, ""))
	require.Empty(t, s.of(key).spaces)

	x := &exchange{authenticator: &authenticator{schemes: []Scheme{&Basic{}}}, attempts: 2, aside: &aside{answer: &lease{}}}
	require.Empty(t, x.rejection(nil, ErrCredentialsRefused).Tried)
}

// Those who wait keep their order, whoever goes.
func TestWaitersKeepTheirOrder(t *testing.T) {
	k := &originSpaces{all: &spaces{}}
	k.bound = 1
	var all []*waiter
	for range 5 {
		k.here = 1
		k.waiting = cmp.Or(k.waiting, new([]*waiter))
		all = append(all, k.queue(nil))
	}
	for _, i := range []int{2, 0, 3, 1} {
		k.unqueue(all[i])
		all[i] = nil
		require.Equal(t, slices.DeleteFunc(slices.Clone(all), func(w *waiter) bool { return w == nil }), *k.waiting)
	}
	k.unqueue(all[4])
	require.Nil(t, k.waiting)
}

// A visit ends once, also if letting out others panics.
func TestVisitEndsOnce(t *testing.T) {
	transport := New(startingScheme{}, &Digest{Username: "u"})
	transport.Base = answering("")
	require.NoError(t, transport.init())
	key := spacesOf("", "api.test")
	transport.auth.spaces.keep(key, urlOf(t, "https://api.test/x/y"), leaseOf(panicsAt{exclusiveWord{}, "/panics"}, 1, "r"), 0)
	k := transport.auth.spaces.of(key)
	transport.auth.spaces.enter(key)
	k.bound, k.waiting = 2, &[]*waiter{{urlOf(t, "https://api.test/panics"), make(chan lease, 1)}}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/another", nil))
	require.ErrorContains(t, err, "panicked")
	require.EqualValues(t, 1, k.here)
}

// panicsAt covers all but a path, at which it panics.
type panicsAt struct {
	exclusiveWord
	path string
}

func (s panicsAt) Covers(u *url.URL) bool {
	if u.Path == s.path {
		panic("x")
	}
	return true
}

// A startingScheme sends a word ahead.
type startingScheme struct{}

func (startingScheme) Name() string { return "Word" }

func (startingScheme) Start(context.Context, *http.Request) (Session, error) {
	return word{text: "Word x"}, nil
}

func (startingScheme) Answer(context.Context, *Challenge, *http.Response) (Session, error) {
	return nil, ErrUnsupportedChallenge
}
