package negotiate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// A testCache is what goes into a file, as the format of MIT krb5 has it in version 4.
type testCache []byte

func (c *testCache) uint32s(numbers ...int) {
	for _, n := range numbers {
		*c = binary.BigEndian.AppendUint32(*c, uint32(n))
	}
}

func (c *testCache) data(b []byte) {
	c.uint32s(len(b))
	*c = append(*c, b...)
}

func (c *testCache) principal(name, realm string) {
	parts := strings.Split(name, "/")
	c.uint32s(1, len(parts))
	c.data([]byte(realm))
	for _, part := range parts {
		c.data([]byte(part))
	}
}

func (c *testCache) entry(t testing.TB, user, service, realm string, of *ticket) {
	c.principal(user, realm)
	c.principal(service, realm)
	*c = binary.BigEndian.AppendUint16(*c, uint16(of.key.KeyType))
	c.data(of.key.KeyValue)
	c.uint32s(int(of.got.Unix()), int(of.got.Unix()), int(of.end.Unix()), 0)
	*c = append(*c, 0)
	c.uint32s(0, 0, 0)
	b, err := of.Ticket.Marshal()
	require.NoError(t, err)
	c.data(b)
	c.data(nil)
}

// cacheOf returns a cache with a ticket-granting ticket of a user, and tickets for services.
func cacheOf(t testing.TB, k *testKDC, user string, services ...string) testCache {
	client := k.client(user)
	var c testCache
	c = append(c, 5, 4, 0, 0)
	c.principal(user, k.realm)
	_, err := client.Token(t.Context(), testSPN)
	require.NoError(t, err)
	c.entry(t, user, "krbtgt/"+k.realm, k.realm, client.login.tgt)
	for _, s := range services {
		of, err := client.ticket(t.Context(), s)
		require.NoError(t, err)
		c.entry(t, user, s, k.realm, of)
	}
	return c
}

func put(t testing.TB, path string, c []byte) {
	require.NoError(t, os.WriteFile(path, c, 0o600))
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Duration(len(c))*time.Second))) // so that it differs
}

// A credential cache is read again when it is changed: another user who has logged in counts, and one who has logged out is
// not sent any more. One that is being written is the one that it was.
func TestCacheIsReadAgain(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	path := filepath.Join(t.TempDir(), "cc")
	c := &Client{Cache: "FILE:" + path, Config: k.config("x"), dial: k.dial}
	rt := to(srv, &Scheme{Kerberos: c, Ahead: true, Mutual: true})
	alices := cacheOf(t, k, "alice")
	put(t, path, alices)
	before := k.tickets.Load()
	expect := func(want string) {
		t.Helper()
		status, user := get(t, rt, testURL)
		require.Equal(t, 200, status)
		require.Equal(t, want, user)
	}
	expect("alice")
	expect("alice")
	require.EqualValues(t, 1, k.tickets.Load()-before)

	put(t, path, append(alices, 0)) // somebody adds to it
	expect("alice")
	other := cacheOf(t, k, "alice", testSPN)
	put(t, path, other) // who has a ticket for the service as well
	before = k.tickets.Load()
	expect("alice")
	require.EqualValues(t, 0, k.tickets.Load()-before)

	bobs := cacheOf(t, k, "bob")
	put(t, path, bobs[:len(bobs)/2])
	expect("alice")
	put(t, path, bobs)
	expect("bob")

	require.NoError(t, os.Remove(path))
	_, err := rt.RoundTrip(newRequest(t, testURL))
	require.ErrorContains(t, err, "there is no credential cache "+path+": run kinit")
}

// When another user's cache takes the place of one, that one's tickets are not used any more, also if the other's has no ticket-granting
// ticket: kinit -S gets a ticket for one service alone. While it begins with the same user, it may be one that is being written.
func TestCacheOfAnotherUserWithoutTicketGrantingTicket(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "cc")
	c := &Client{Cache: path, Config: k.config("x"), dial: k.dial}
	begin := func(user string) (cache testCache) {
		cache = append(cache, 5, 4, 0, 0)
		cache.principal(user, k.realm)
		return cache
	}
	put(t, path, cacheOf(t, k, "alice"))
	_, err := c.Token(t.Context(), testSPN)
	require.NoError(t, err)
	put(t, path, begin("alice"))
	_, err = c.Token(t.Context(), testSPN)
	require.NoError(t, err)

	bobs := begin("bob")
	for range 2 {
		put(t, path, bobs)
		_, err = c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "has no ticket-granting ticket: run kinit")
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		of, err := k.client("bob").ticket(t.Context(), testSPN)
		require.NoError(t, err)
		bobs.entry(t, "bob", testSPN, testRealm, of)
	}
	put(t, path, bobs[:len(bobs)-9]) // while it is being written, it does not become alice's again
	_, err = c.Token(t.Context(), testSPN)
	require.ErrorContains(t, err, "it is damaged")
}

// Who has logged out is not logged in again by a cache that cannot be read.
func TestCacheThatComesBackDamaged(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "cc")
	c := &Client{Cache: path, Config: k.config("x"), dial: k.dial}
	alices := cacheOf(t, k, "alice")
	put(t, path, alices)
	token, err := c.Token(t.Context(), testSPN)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	_, err = c.Token(t.Context(), testSPN)
	require.ErrorContains(t, err, "there is no credential cache")
	put(t, path, alices[:len(alices)/2])
	_, err = c.Token(t.Context(), testSPN)
	require.ErrorContains(t, err, "it is damaged")
	put(t, path, cacheOf(t, k, "bob"))
	_, err = c.Token(t.Context(), testSPN)
	require.NoError(t, err)
	_, reply, ok := newTestService(k).accept(token)
	require.True(t, ok)
	require.NoError(t, c.Verify(testSPN, token, reply), "of what was out by then")
}

// What a cache has of somebody else than its principal is not sent.
func TestCacheWithTicketsOfOthers(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	path := filepath.Join(t.TempDir(), "cc")
	alices := cacheOf(t, k, "alice")
	bob := k.client("bob")
	bobs, err := bob.ticket(t.Context(), testSPN)
	require.NoError(t, err)
	alices.entry(t, "bob", testSPN, testRealm, bobs)
	alices.entry(t, "bob", "krbtgt/"+testRealm, testRealm, bob.login.tgt)
	put(t, path, alices)
	before := k.tickets.Load()
	status, user := get(t, to(srv, &Scheme{Kerberos: &Client{Cache: path, Config: k.config("x"), dial: k.dial}}), testURL)
	require.Equal(t, 200, status)
	require.Equal(t, "alice", user)
	require.EqualValues(t, 1, k.tickets.Load()-before)
}

// A cache that is written again and again, as by whoever keeps it fresh, does no harm to requests that go on meanwhile.
func TestCacheThatIsWrittenMeanwhile(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	path := filepath.Join(t.TempDir(), "cc")
	rt := to(srv, &Scheme{Kerberos: &Client{Cache: path, Config: k.config("x"), dial: k.dial}, Ahead: true, Mutual: true})
	caches := []testCache{cacheOf(t, k, "alice"), cacheOf(t, k, "alice"), append(cacheOf(t, k, "alice", testSPN), 0)}
	put(t, path, caches[0])
	status, _ := get(t, rt, testURL)
	require.Equal(t, 200, status)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 50 {
				resp, err := rt.RoundTrip(httptest.NewRequest("GET", testURL, nil))
				if err != nil {
					t.Error(err)
				} else if resp.StatusCode != 200 {
					t.Error(resp.Status)
				}
			}
		})
	}
	for i := range 60 {
		put(t, path, caches[i%3])
		put(t, path, caches[i%3][:len(caches[i%3])/2]) // half of it
	}
	workers.Wait()
}

// A reply to a token of the login before is verified, too.
func TestReplyThatComesAfterANewLogin(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	path := filepath.Join(t.TempDir(), "cc")
	c := &Client{Cache: path, Config: k.config("x"), dial: k.dial}
	put(t, path, cacheOf(t, k, "alice"))
	token, err := c.Token(t.Context(), testSPN)
	require.NoError(t, err)
	put(t, path, cacheOf(t, k, "bob"))
	_, err = c.Token(t.Context(), testSPN)
	require.NoError(t, err)
	_, reply, ok := srv.accept(token)
	require.True(t, ok)
	require.NoError(t, c.Verify(testSPN, token, reply))
	require.ErrorContains(t, new(Client).Verify(testSPN, token, reply), "not known any more")
	require.False(t, new(Client).Renew(testSPN, token))
}

func TestCachesThatCannotBeRead(t *testing.T) {
	k := newTestKDC(t, testSPN)
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged")
	empty := filepath.Join(dir, "empty")
	alices := cacheOf(t, k, "alice")
	put(t, damaged, alices[:len(alices)-30])
	put(t, empty, alices[:4+4+4+4+len(testRealm)+4+len("alice")])
	ended := filepath.Join(dir, "ended")
	c := k.client("alice")
	tgt, err := c.logInNow(t)
	require.NoError(t, err)
	tgt.end = time.Now()
	old := testCache{5, 4, 0, 0}
	old.principal("alice", testRealm)
	old.entry(t, "alice", "krbtgt/"+testRealm, testRealm, tgt)
	put(t, ended, old)
	for cache, text := range map[string]string{
		"KCM:":                 `the credential cache "KCM:", as Client.Cache names it, is of the type KCM, and only those of the type FILE can be read`,
		"KEYRING:persistent:0": "is of the type KEYRING",
		"DIR:/run/user/0/krb5": "is of the type DIR",
		"MEMORY:x":             "is of the type MEMORY",
		dir + "/not-here":      "run kinit",
		dir:                    "cannot be read",
		damaged:                "it is damaged, or no such file",
		empty:                  "has no ticket-granting ticket: run kinit",
		ended:                  "has ended at",
	} {
		srv := newTestService(k)
		_, err := to(srv, &Scheme{Kerberos: &Client{Cache: cache, Config: k.config("x"), dial: k.dial}}).RoundTrip(newRequest(t, testURL))
		require.ErrorContains(t, err, text, cache)
		require.Equal(t, strings.Contains(text, "kinit") || strings.Contains(text, "ended"), errors.Is(err, authretry.ErrLoginRequired), cache)
		require.EqualValues(t, 1, srv.requests.Load())
	}
}

// By default the cache is the one that the environment names.
func TestDefaultCache(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "cc")
	put(t, path, cacheOf(t, k, "carol", testSPN))
	t.Setenv("KRB5CCNAME", path)
	t.Setenv("KRB5_CONFIG", k.config("127.0.0.1:9")+":/not/here")
	srv := newTestService(k)
	status, user := get(t, to(srv, new(Scheme)), testURL)
	require.Equal(t, 200, status)
	require.Equal(t, "carol", user)

	// It is the program's user, who is not every account's.
	rt := to(srv, new(Scheme))
	rt.Account = func(*http.Request) string { return "somebody" }
	_, err := rt.RoundTrip(newRequest(t, testURL))
	require.ErrorContains(t, err, "set Scheme.Accounts")
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)

	t.Setenv("KRB5CCNAME", "KEYRING:persistent:0")
	_, err = to(srv, new(Scheme)).RoundTrip(newRequest(t, testURL))
	require.ErrorContains(t, err, "as KRB5CCNAME names it")
	t.Setenv("KRB5CCNAME", "")
	got, err := cachePath("")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("/tmp/krb5cc_%d", os.Getuid()), got)
}

// logInNow returns a ticket-granting ticket.
func (c *Client) logInNow(t testing.TB) (*ticket, error) {
	require.NoError(t, c.init())
	return c.logIn(t.Context())
}

// A cache that is written again, with the same tickets, changes nothing for exchanges that are under way.
func TestCacheIsTouchedWhileTicketsAreWanted(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "cc")
	put(t, path, cacheOf(t, k, "alice"))
	c := &Client{Cache: path, Config: k.config("the.kdc.test:88"), dial: k.dial}
	k.rekey("krbtgt/" + k.realm) // so that each ends with a refusal of the ticket
	var callers sync.WaitGroup
	for i := range 200 {
		callers.Go(func() {
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Duration(i)*time.Minute)); err != nil {
				t.Error(err)
			}
			if _, err := c.Token(t.Context(), fmt.Sprintf("HTTP/%d.test", i)); err == nil || !strings.Contains(err.Error(), "BAD_INTEGRITY") {
				t.Error(err)
			}
		})
	}
	callers.Wait()
}
