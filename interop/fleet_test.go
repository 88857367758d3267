package interop

import (
	"bufio"
	"cmp"
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/internal/keyringtest"
	"github.com/authretry/authretry/internal/pgtest"
	"github.com/authretry/authretry/interop/internal/oauthserver"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/keyringstore"
	"github.com/authretry/authretry/redisstore"
	"github.com/authretry/authretry/sqlstore"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const (
	fleetProcesses  = 8
	fleetGoroutines = 64
	fleetExpiries   = 30
	fleetKills      = 8
)

// A fleetStore is a TokenStore that processes can be told of by one string.
type fleetStore struct {
	name  string
	start func(t *testing.T) (address string)
	open  func(address string) authretry.TokenStore
}

var fleetStores = []fleetStore{
	{
		name:  "filestore",
		start: func(t *testing.T) string { return filepath.Join(t.TempDir(), "token.json") },
		open:  func(address string) authretry.TokenStore { return filestore.New(address) },
	},
	{
		name:  "redisstore",
		start: func(t *testing.T) string { return servers.Redis(t) },
		open: func(address string) authretry.TokenStore {
			// A killed holder's lock lasts as long as LockTTL. It has to outlast what a busy machine keeps a living one
			// from extending it, or two refresh at once.
			return &redisstore.Store{Client: redis.NewClient(&redis.Options{Addr: address}), Key: "login", LockTTL: 2 * time.Second}
		},
	},
}

// moreFleetStores are those whose lock ends with its process as filestore's does, or with its connection. One test of a fleet will do.
var moreFleetStores = []fleetStore{
	{
		name: "sqlstore",
		start: func(t *testing.T) string {
			pg, err := pgtest.Start()
			if errors.Is(err, pgtest.ErrNotInstalled) && os.Getenv("AUTHRETRY_INTEROP") != "require" {
				t.Skip(err)
			}
			require.NoError(t, err)
			t.Cleanup(pg.Close)
			db, err := sql.Open("pgx", pg.DSN("owner"))
			require.NoError(t, err)
			defer db.Close()
			_, err = db.ExecContext(t.Context(), sqlstore.Schema)
			require.NoError(t, err)
			return pg.DSN("owner")
		},
		open: func(address string) authretry.TokenStore {
			db, err := sql.Open("pgx", address)
			if err != nil {
				panic(err)
			}
			db.SetMaxOpenConns(4)
			return &sqlstore.Store{DB: db, Name: "login"}
		},
	},
	{
		name: "keyringstore",
		start: func(t *testing.T) string {
			keyringtest.Start(t)
			lock := filepath.Join(t.TempDir(), "lock")
			require.Eventually(t, func() bool {
				_, err := fleetKeyring(lock).Load(t.Context())
				return err == nil
			}, 20*time.Second, 50*time.Millisecond, "GNOME Keyring does not answer")
			return lock
		},
		open: fleetKeyring,
	},
}

func fleetKeyring(address string) authretry.TokenStore {
	return &keyringstore.Store{Service: "authretry-fleet", User: "login", LockFile: address}
}

func openFleetStore(name, address string) authretry.TokenStore {
	for _, s := range slices.Concat(fleetStores, moreFleetStores) {
		if s.name == name {
			return s.open(address)
		}
	}
	panic("there is no store " + name)
}

// A fleetReport is what a process of the fleet has to say at its end.
type fleetReport struct {
	Requests      int
	LoginRequired int      // requests that failed for want of a login
	RefusedTwice  int      // requests whose retry met the end of the next token: that refusal stands
	Failures      []string // all others, the first few
}

// runFleetProcess is a process of the fleet: it sends requests until its standard input ends.
func runFleetProcess() {
	url := os.Getenv("FLEET_SERVER")
	tokens := &authretry.TokenSource{
		Fetch: authretry.RefreshGrant(oauthserver.Config(cmp.Or(os.Getenv("FLEET_TOKEN_SERVER"), url))),
		Store: openFleetStore(os.Getenv("FLEET_STORE"), os.Getenv("FLEET_ADDRESS")),
		// The tests end tokens four times a second. By default a process that has replaced eight of them within
		// 10 s, as chance may have it, would not replace the next: no server in the field is like that.
		MinRefreshInterval: time.Second,
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = fleetGoroutines
	client := &http.Client{Transport: &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}}}}

	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var mu sync.Mutex
	var report fleetReport
	var wg sync.WaitGroup
	for range fleetGoroutines {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := fleetRequest(client, url)
				mu.Lock()
				report.Requests++
				switch {
				case errors.Is(err, authretry.ErrLoginRequired):
					report.LoginRequired++
				case refusedTwice(err):
					report.RefusedTwice++
				case err != nil && len(report.Failures) < 5:
					report.Failures = append(report.Failures, err.Error())
				}
				mu.Unlock()
				time.Sleep(200*time.Millisecond + rand.N(300*time.Millisecond))
			}
		})
	}
	wg.Wait()
	json.NewEncoder(os.Stdout).Encode(report)
}

// refusedTwice reports whether a request was refused with one token and then with the next, which takes a machine so
// busy that a token's life goes by between the two.
func refusedTwice(err error) bool {
	rejection, ok := errors.AsType[*authretry.Rejection](err)
	return ok && rejection.Reason == authretry.ReasonFreshTokenRefused && rejection.Retried
}

func fleetRequest(client *http.Client, url string) error {
	req, err := http.NewRequest("GET", url+"/resource", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Client", fmt.Sprint(os.Getpid()))
	req.Header.Set("X-Request", crand.Text())
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return authretry.Explain(resp)
}

// A fleet is processes that share a login.
type fleet struct {
	t       *testing.T
	srv     *oauthserver.Server
	store   fleetStore
	address string
	members []*fleetMember
}

type fleetMember struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

func startFleet(t *testing.T, s fleetStore) *fleet {
	f := &fleet{t: t, srv: startOAuth(t, time.Hour), store: s, address: s.start(t)}
	f.login()
	for range fleetProcesses {
		f.members = append(f.members, f.startMember())
	}
	t.Cleanup(f.killAll)
	return f
}

func (f *fleet) killAll() {
	for _, m := range f.members {
		m.cmd.Process.Kill()
		m.cmd.Wait()
	}
}

// login puts a new login into the store, as a person at one of the processes would.
func (f *fleet) login() {
	token, err := f.srv.Login(f.t.Context())
	require.NoError(f.t, err)
	require.NoError(f.t, (&authretry.TokenSource{Store: openFleetStore(f.store.name, f.address)}).Set(token))
}

func (f *fleet) startMember(env ...string) *fleetMember {
	exe, err := os.Executable()
	require.NoError(f.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), env...), "FLEET_SERVER="+f.srv.URL, "FLEET_STORE="+f.store.name, "FLEET_ADDRESS="+f.address)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(f.t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	return &fleetMember{cmd, stdin, bufio.NewReader(stdout)}
}

// kill ends a member by SIGKILL and puts another in its place.
func (f *fleet) kill(i int) {
	require.NoError(f.t, f.members[i].cmd.Process.Kill())
	f.members[i].cmd.Wait()
	f.members[i] = f.startMember()
}

// settled waits until every process has come through with the latest token. It returns false if that does not happen
// in time, or if the login has ended.
func (f *fleet) settled(within time.Duration) bool {
	all := func() bool {
		for _, m := range f.members {
			if !f.srv.HasSeen(fmt.Sprint(m.cmd.Process.Pid)) {
				return false
			}
		}
		return true
	}
	before := f.srv.Counts().InvalidGrants
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if all() {
			f.quiet()
			return true
		}
		if f.srv.Counts().InvalidGrants > before {
			return false
		}
	}
	return false
}

// quiet waits until no request is refused any more and none has a retry on its way, as long as that may take: its second
// refusal would stand. A member that was killed leaves retries behind that never come.
func (f *fleet) quiet() {
	end := time.Now().Add(2 * time.Second)
	for refused := -1; refused != f.srv.Counts().Refused || f.srv.Owed() > 0 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		refused = f.srv.Counts().Refused
	}
}

// stop ends the fleet and adds up the reports.
func (f *fleet) stop() (sum fleetReport) {
	for _, m := range f.members {
		m.stdin.Close()
	}
	for _, m := range f.members {
		var report fleetReport
		require.NoError(f.t, json.NewDecoder(m.out).Decode(&report))
		require.NoError(f.t, m.cmd.Wait())
		sum.Requests += report.Requests
		sum.LoginRequired += report.LoginRequired
		sum.RefusedTwice += report.RefusedTwice
		sum.Failures = append(sum.Failures, report.Failures...)
	}
	f.members = nil
	return sum
}

// Eight processes with 64 goroutines each share one login whose refresh token is good once. Its access token ends 30
// times, while all of them use it: each time one of them refreshes it, and nobody notices.
func TestFleetRefreshesOnce(t *testing.T) {
	for _, s := range slices.Concat(fleetStores, moreFleetStores) {
		t.Run(s.name, func(t *testing.T) {
			f := startFleet(t, s)
			require.True(t, f.settled(30*time.Second), "the fleet is up")
			for i := range fleetExpiries {
				require.NoError(t, f.srv.Expire(t.Context()))
				require.True(t, f.settled(30*time.Second), "expiry %d", i)
				require.Equal(t, i+1, f.srv.Counts().Refreshes)
			}
			sum := f.stop()
			counts := f.srv.Counts()
			t.Logf("%d requests, %d refused on the way, %d refreshes for %d expiries, %d invalid_grant",
				sum.Requests, counts.Refused, counts.Refreshes, fleetExpiries, counts.InvalidGrants)
			require.Empty(t, sum.Failures)
			require.LessOrEqual(t, sum.RefusedTwice, sum.Requests/500, "which is for machines so busy that a request takes a token's life")
			require.Zero(t, sum.LoginRequired)
			require.Zero(t, counts.InvalidGrants)
			require.Equal(t, fleetExpiries, counts.Refreshes)
		})
	}
}

// The same with tokens that expire by themselves, every two seconds.
func TestFleetRefreshesBeforeTokensExpire(t *testing.T) {
	for _, s := range fleetStores {
		t.Run(s.name, func(t *testing.T) {
			f := startFleet(t, s)
			require.True(t, f.settled(30*time.Second), "the fleet is up")
			f.srv.SetLifetime(2 * time.Second)
			require.NoError(t, f.srv.Expire(t.Context()))
			start := time.Now()
			for range 5 {
				before := f.srv.Counts().Refreshes
				require.Eventually(t, func() bool { return f.srv.Counts().Refreshes > before }, 10*time.Second, 10*time.Millisecond)
			}
			took := time.Since(start)
			sum := f.stop()
			counts := f.srv.Counts()
			t.Logf("%d requests, %d refused on the way, %d refused twice, %d refreshes in %v, %d invalid_grant",
				sum.Requests, counts.Refused, sum.RefusedTwice, counts.Refreshes, took, counts.InvalidGrants)
			require.Empty(t, sum.Failures)
			require.Zero(t, sum.LoginRequired)
			require.Zero(t, counts.InvalidGrants)
			// The server rounds to seconds, so a token lives for at least 1.5 s, and is refreshed after half of that.
			require.LessOrEqual(t, counts.Refreshes, 2+int(took/(700*time.Millisecond)))
		})
	}
}

// Processes are killed at random, also between the server's answer and the store's write. Then the refresh token is
// lost, and all processes say so, until somebody logs in again.
func TestFleetSurvivesKills(t *testing.T) {
	for _, s := range fleetStores {
		t.Run(s.name, func(t *testing.T) {
			f := startFleet(t, s)
			require.True(t, f.settled(30*time.Second), "the fleet is up")
			lost := 0
			for i := range fleetKills {
				before := f.srv.Counts()
				require.NoError(t, f.srv.Expire(t.Context()))
				time.Sleep(rand.N(30 * time.Millisecond)) // so as to meet any point of a refresh
				f.kill(rand.IntN(fleetProcesses))
				_, err := openFleetStore(s.name, f.address).Load(t.Context())
				require.NoError(t, err, "what a kill leaves is a whole token")
				if f.srv.Counts().InvalidGrants == before.InvalidGrants && f.settled(30*time.Second) {
					continue
				}
				// The login may end only because a token was issued and not saved.
				after := f.srv.Counts()
				require.Greater(t, after.InvalidGrants, before.InvalidGrants, "expiry %d", i)
				require.Greater(t, after.Refreshes, before.Refreshes)
				lost++
				for known := -1; known != f.srv.Counts().InvalidGrants; time.Sleep(time.Second) {
					known = f.srv.Counts().InvalidGrants // each process has to find out
				}
				f.login()
				require.True(t, f.settled(60*time.Second), "after the login")
			}
			sum := f.stop()
			counts := f.srv.Counts()
			t.Logf("%d kills: the login survived %d times, and was lost %d times; %d requests of survivors, %d refreshes, %d invalid_grant, %d times ErrLoginRequired",
				fleetKills, fleetKills-lost, lost, sum.Requests, counts.Refreshes, counts.InvalidGrants, sum.LoginRequired)
			require.Empty(t, sum.Failures)
			if lost == 0 {
				require.Zero(t, sum.LoginRequired)
			}
		})
	}
}

// TestMain lets the test binary be a process of a fleet.
func TestMain(m *testing.M) {
	if os.Getenv("FLEET_SERVER") != "" {
		runFleetProcess()
		return
	}
	os.Exit(m.Run())
}
