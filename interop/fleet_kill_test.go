package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// A killPoint is a point of a refresh.
type killPoint int

const (
	beforeServer killPoint = iota + 1 // the authorization server has not seen the request
	beforeAnswer                      // it has rotated the refresh token, and nobody knows the new one
	afterAnswer                       // the new one is at the process, which is about to save it
)

var killPoints = map[killPoint]string{
	beforeServer: "before the token endpoint", beforeAnswer: "before its answer", afterAnswer: "after its answer",
}

// A killing is what a process was doing when it was killed, and what it left.
type killing struct {
	member int
	used   string // the refresh token that it has sent
	issued string // the one that the server has issued for it; "" if the server has not seen the request
	stored string // the one in the store
	err    error  // of reading the store
}

// A gate stands before the token endpoint. It lets one request through at a time, knows which process sends it, and
// kills that process at the point that is set.
type gate struct {
	f        *fleet
	killings chan killing

	mu    sync.Mutex // held from when a request comes until its killing is done. Guards what follows.
	point killPoint
	sent  map[string][]int // the members that have sent a refresh token, by that
}

// server returns a token endpoint for one member of the fleet.
func (g *gate) server(member int) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, member) }))
	g.f.t.Cleanup(srv.Close)
	return srv
}

func (g *gate) set(p killPoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.point = p
}

// senders returns the members that have sent a refresh token to the server: more than one if its second use ended the
// login.
func (g *gate) senders(refreshToken string) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sent[refreshToken])
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request, member int) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the process was killed while it sent the request
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := killing{member: member, used: form.Get("refresh_token")}
	if g.point == beforeServer {
		g.kill(k)
		return
	}
	g.sent[k.used] = append(g.sent[k.used], member)
	status, answer, err := g.forward(r.Header, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	var token struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.Unmarshal(answer, &token)
	k.issued = token.RefreshToken
	if g.point == beforeAnswer {
		g.kill(k)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer))) // so that the answer is whole before we return
	w.WriteHeader(status)
	_, _ = w.Write(answer)
	if g.point == afterAnswer {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(rand.N(20 * time.Millisecond)) // so as to meet any point of the writing
		g.kill(k)
	}
}

// forward sends a token request on to the server. It goes through even if the process has gone.
func (g *gate) forward(h http.Header, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequest("POST", g.f.srv.URL+"/token", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", h.Get("Content-Type"))
	req.Header.Set("Authorization", h.Get("Authorization"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// kill kills the process and sees what it has left, while the gate is closed to all others. The caller holds mu.
func (g *gate) kill(k killing) {
	g.point = 0
	m := g.f.members[k.member]
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	var r *authretry.Record
	if r, k.err = openFleetStore(g.f.store.name, g.f.address).Load(context.Background()); r != nil && r.Token != nil {
		k.stored = r.Token.RefreshToken
	}
	g.killings <- k
}

// The process that refreshes is killed, at every point where it matters. What it leaves in the store says what must
// follow: if that is a refresh token that has not been used, the fleet goes on and nobody notices. If it is one that
// has, because the server issued another one that nobody got to save, the login is over, and every process says so.
func TestFleetGoesOnWhereARefreshWasKilled(t *testing.T) {
	const rounds = 5
	for _, s := range fleetStores {
		t.Run(s.name, func(t *testing.T) {
			f := &fleet{t: t, srv: startOAuth(t, time.Hour), store: s, address: s.start(t)}
			f.login()
			g := &gate{f: f, killings: make(chan killing, 1), sent: make(map[string][]int)}
			servers := make([]string, fleetProcesses)
			for i := range servers {
				servers[i] = g.server(i).URL
				f.members = append(f.members, f.startMember("FLEET_TOKEN_SERVER="+servers[i]))
			}
			t.Cleanup(f.killAll)
			require.True(t, f.settled(30*time.Second), "the fleet is up")

			survived, lost := map[killPoint]int{}, map[killPoint]int{}
			for i := range rounds * len(killPoints) {
				point := killPoint(i%len(killPoints) + 1)
				before := f.srv.Counts()
				g.set(point)
				require.NoError(t, f.srv.Expire(t.Context()))
				var k killing
				select {
				case k = <-g.killings:
				case <-time.After(30 * time.Second):
					require.FailNow(t, "nobody has refreshed", "%s", killPoints[point])
				}
				g.mu.Lock()
				f.members[k.member] = f.startMember("FLEET_TOKEN_SERVER=" + servers[k.member])
				g.mu.Unlock()

				require.NoError(t, k.err, "what a kill leaves is a whole token")
				require.Contains(t, []string{k.used, k.issued}, k.stored, "the old one or the new one")
				if point != beforeServer {
					require.NotEmpty(t, k.issued, "the refresh token was good when it was sent")
				}
				if point == beforeServer || k.stored == k.issued {
					settled := f.settled(30 * time.Second)
					after := f.srv.Counts()
					require.True(t, settled, "killed %s; %d invalid_grant; its refresh token was sent by %v",
						killPoints[point], after.InvalidGrants-before.InvalidGrants, g.senders(k.used))
					require.Equal(t, before.InvalidGrants, after.InvalidGrants, "killed %s", killPoints[point])
					require.Equal(t, before.Refreshes+1, after.Refreshes, "killed %s", killPoints[point])
					survived[point]++
					continue
				}
				require.Eventually(t, func() bool { return f.srv.Counts().InvalidGrants > before.InvalidGrants }, 30*time.Second, 5*time.Millisecond)
				f.login()
				require.True(t, f.settled(60*time.Second), "after the login")
				lost[point]++
			}
			sum := f.stop()
			for p := beforeServer; p <= afterAnswer; p++ {
				t.Logf("killed %s: the login survived %d of %d times", killPoints[p], survived[p], rounds)
			}
			t.Logf("%d requests of survivors, %d times ErrLoginRequired, %d invalid_grant", sum.Requests, sum.LoginRequired, f.srv.Counts().InvalidGrants)
			require.Empty(t, sum.Failures)
			require.Equal(t, rounds, survived[beforeServer])
			require.Equal(t, rounds, lost[beforeAnswer])
			require.Positive(t, sum.LoginRequired)
		})
	}
}
