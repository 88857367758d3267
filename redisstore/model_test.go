package redisstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

var (
	modelSeeds = flag.Uint64("model.seeds", 40, "how many schedules of each kind the model runs")
	modelSeed  = flag.Uint64("model.seed", 0, "the first of them")
)

const (
	modelTTL       = 2 * time.Second
	modelProcesses = 4
	modelLength    = 20 * time.Second // of virtual time, during which something may go wrong
)

// A modelKind is what may go wrong in a schedule, how often, and what may come of it.
type modelKind struct {
	name                                  string
	dropped, late, crash, pause, failover float64
	loses                                 []string // why logins are lost in these schedules, and only why
}

// Why a login is lost, as the package comment admits.
const (
	lostByCrash    = "a holder crashed after it had sent the refresh token, and before it had saved the answer"
	lostByPause    = "a holder was suspended after the lock was confirmed"
	lostByCut      = "a holder was cut off from Redis after the lock was confirmed"
	lostByFailover = "Redis lost what it had confirmed"
)

var modelKinds = []modelKind{
	{name: "nothing"},
	{name: "packets lost and late", dropped: 0.03, late: 0.03, loses: []string{lostByCut}},
	{name: "crashes", crash: 0.02, loses: []string{lostByCrash}},
	{name: "pauses", pause: 0.02, loses: []string{lostByPause}},
	{name: "failovers", failover: 0.15, loses: []string{lostByFailover}},
	{name: "all", dropped: 0.02, late: 0.02, crash: 0.01, pause: 0.02, failover: 0.1, loses: []string{lostByCrash, lostByPause, lostByCut, lostByFailover}},
}

// A model is processes that share a login in Redis, whose refresh tokens are good once, in virtual time: who sends one twice ends the login.
type model struct {
	t     *testing.T
	kind  modelKind
	seed  uint64
	redis *modelRedis
	end   time.Time
	all   sync.WaitGroup

	mu        sync.Mutex
	processes [modelProcesses]*modelProcess
	newest    int            // the token that the issuer has issued last
	spends    map[int]*spend // who has sent the refresh token of each
	failovers []time.Time    // those by which something was lost
	lost      string         // why the login is lost; "": it is not
	wrong     string         // what must not be
	trace     []string
}

// A spend is one use of a refresh token.
type spend struct {
	process   *modelProcess
	asked     time.Time // when the lock was to be confirmed
	confirmed time.Time
}

// A trouble is what goes wrong with a process.
type trouble struct {
	why      string
	from, to time.Time
}

type modelProcess struct {
	model *model
	id    int
	store *Store
	known int               // the newest token that it knows
	kept  *authretry.Record // one that it has not saved yet

	mu       sync.Mutex
	dead     bool
	paused   time.Time // until when
	troubles []trouble
}

// runModel runs a schedule, and returns the model as it is in the end.
func runModel(t *testing.T, kind modelKind, seed uint64) *model {
	var m *model
	synctest.Test(t, func(t *testing.T) {
		m = &model{t: t, kind: kind, seed: seed, redis: &modelRedis{}, spends: map[int]*spend{}, end: time.Now().Add(modelLength)}
		data, err := modelRecord(0).Encode()
		require.NoError(t, err)
		m.redis.now.login = string(data)
		for id := range modelProcesses {
			m.start(id)
		}
		for time.Now().Before(m.end) {
			chance := m.chance(-1, "failover")
			wait, fails, lag := randomBelow(chance, 2*time.Second), chance.Float64() < kind.failover, randomBelow(chance, 500*time.Millisecond)
			time.Sleep(wait)
			m.suspendSomebody(chance)
			if fails && !m.isOver() && m.redis.failOver(lag) {
				m.mu.Lock()
				m.failovers = append(m.failovers, time.Now())
				m.mu.Unlock()
			}
		}
		m.all.Wait()
		m.settle()
	})
	return m
}

func modelRecord(n int) *authretry.Record {
	return &authretry.Record{Token: &oauth2.Token{AccessToken: fmt.Sprint(n), RefreshToken: fmt.Sprint("r", n)}}
}

func modelNumber(r *authretry.Record) (n int) {
	if r == nil {
		return -1
	}
	_, _ = fmt.Sscan(r.Token.AccessToken, &n)
	return n
}

// note writes down what happens. The caller holds m.mu.
func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf("%12v ", modelLength-time.Until(m.end))+fmt.Sprintf(format, args...))
}

func (m *model) isWrong(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = why
}

// suspendSomebody suspends a process, wherever it is.
func (m *model) suspendSomebody(chance *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.processes[chance.IntN(len(m.processes))]
	if chance.Float64() < 10*m.kind.pause && !m.isOver() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.suspend(chance)
	}
}

// suspend suspends the process. The caller holds mu.
func (p *modelProcess) suspend(chance *rand.Rand) {
	p.paused = time.Now().Add(randomBelow(chance, 3*modelTTL))
	p.troubles = append(p.troubles, trouble{lostByPause, time.Now(), p.paused})
}

// start starts a process in the place of id.
func (m *model) start(id int) {
	p := &modelProcess{model: m, id: id}
	m.mu.Lock()
	m.processes[id%modelProcesses] = p
	m.mu.Unlock()
	p.store = &Store{Client: &modelClient{redis: m.redis, process: p}, Key: "login", LockTTL: modelTTL, random: func(below time.Duration) time.Duration {
		return p.below("store", below)
	}}
	m.all.Go(p.live)
}

// chance returns what decides over something that a process does now. It goes by the time rather than by what was decided before, as that of
// two goroutines which comes first at one instant must not change the schedule.
func (m *model) chance(process int, what string) *rand.Rand {
	sum := fnv.New64a()
	fmt.Fprint(sum, m.seed, process, what)
	return rand.New(rand.NewPCG(sum.Sum64(), uint64(time.Now().UnixNano())))
}

func randomBelow(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(below)))
}

func (p *modelProcess) below(what string, below time.Duration) time.Duration {
	return randomBelow(p.model.chance(p.id, what), below)
}

// net returns how long a packet takes; less than 0: it is lost.
func (p *modelProcess) net(what string) time.Duration {
	chance := p.model.chance(p.id, what)
	delay := time.Millisecond + randomBelow(chance, 20*time.Millisecond)
	if x := chance.Float64(); !p.model.isOver() && x < p.model.kind.dropped+p.model.kind.late {
		if delay += randomBelow(chance, 3*time.Second); x < p.model.kind.dropped { // or it is overtaken by what was sent later
			delay = -1
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.troubles = append(p.troubles, trouble{lostByCut, time.Now(), time.Now().Add(max(delay, modelPatience))})
	}
	return delay
}

func (m *model) isOver() bool { return !time.Now().Before(m.end) }

// runs returns when the process runs. If it has crashed, it ends the goroutine.
func (p *modelProcess) runs() {
	for {
		p.mu.Lock()
		dead, wait := p.dead, time.Until(p.paused)
		p.mu.Unlock()
		if dead {
			runtime.Goexit()
		}
		if wait <= 0 {
			return
		}
		time.Sleep(wait)
	}
}

// at is a point at which the process may crash or be suspended.
func (p *modelProcess) at(point string) {
	m := p.model
	chance := m.chance(p.id, point)
	x := chance.Float64()
	p.mu.Lock()
	switch {
	case m.isOver() || p.dead:
	case x < m.kind.crash:
		p.dead = true
		p.troubles = append(p.troubles, trouble{lostByCrash, time.Now(), m.end.Add(time.Hour)})
		m.all.Go(func() { // another one takes its place
			time.Sleep(100 * time.Millisecond)
			m.start(p.id + modelProcesses)
		})
	case x < m.kind.crash+m.kind.pause:
		p.suspend(chance)
	}
	p.mu.Unlock()
	p.runs()
}

// live uses the login, until the end and until what it has obtained is saved.
func (p *modelProcess) live() {
	for !p.model.isOver() || p.kept != nil && p.model.why() == "" {
		time.Sleep(p.below("idle", time.Second))
		p.at("before the lock")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := p.store.UpdateUnless(ctx, func(r *authretry.Record) bool {
			if p.kept == nil && modelNumber(r) > p.known {
				p.known = modelNumber(r)
				return true
			}
			return false
		}, p.refresh)
		cancel()
		if err == nil || errors.Is(err, ErrLockLost) {
			p.kept = nil // saved, or another one has a later one
		}
		p.at("after the lock")
	}
}

// refresh is what a TokenSource does under the lock.
func (p *modelProcess) refresh(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
	n := modelNumber(current)
	switch {
	case p.kept != nil && n < modelNumber(p.kept):
		return p.kept, nil
	case n > p.known:
		p.known = n
		return nil, nil
	}
	p.at("in the lock")
	s := &spend{process: p, asked: time.Now()}
	if err := confirm(ctx); err != nil {
		return nil, err
	}
	if s.confirmed = time.Now(); s.confirmed.Sub(s.asked) >= modelTTL {
		p.model.isWrong("the lock was confirmed after it may have expired")
	}
	p.at("confirmed")
	answered := make(chan int, 1)
	there, back := p.below("there", 100*time.Millisecond), p.below("back", 100*time.Millisecond)
	if p.below("busy", time.Second) < 50*time.Millisecond { // the issuer takes longer than the lock lasts without being extended
		there = modelTTL + p.below("there", 2*modelTTL)
	}
	time.AfterFunc(there, func() {
		next := p.model.issue(n, s)
		time.AfterFunc(back, func() { answered <- next })
	})
	p.at("sent")
	next := <-answered
	p.at("answered")
	if next < 0 {
		return nil, errors.New("the login has ended")
	}
	p.known, p.kept = next, modelRecord(next)
	return p.kept, nil
}

// issue issues a token for the refresh token of the n-th; -1: the login has ended.
func (m *model) issue(n int, s *spend) (next int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("%d sends r%d", s.process.id, n)
	switch first := m.spends[n]; {
	case m.lost != "":
		return -1
	case first != nil || n != m.newest:
		if first == nil {
			m.wrong = "a refresh token was sent that nobody can know"
		} else {
			m.lose(m.whyTwice(first, s))
		}
		return -1
	}
	m.spends[n] = s
	m.newest = n + 1
	return m.newest
}

// lose ends the login. The caller holds mu.
func (m *model) lose(why string) {
	m.note("lost: %s", why)
	if m.lost = why; why == "" {
		m.lost, m.wrong = "unknown", "a login was lost for no reason that is admitted"
	}
}

// whyTwice returns why two have sent one refresh token: what has befallen the one whose lock was confirmed first, before that of the other
// one was. "" means that there is no reason.
func (m *model) whyTwice(a, b *spend) string {
	if b.confirmed.Before(a.confirmed) {
		a, b = b, a
	}
	if n := len(m.failovers); n > 0 && m.failovers[n-1].After(a.asked) { // which has brought back what a has spent, or freed its lock
		return lostByFailover
	}
	if b.confirmed.Sub(a.asked) < modelTTL {
		return ""
	}
	a.process.mu.Lock()
	defer a.process.mu.Unlock()
	for _, t := range a.process.troubles {
		if t.to.After(a.asked) && t.from.Before(b.confirmed) {
			return t.why
		}
	}
	return ""
}

func (m *model) why() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost
}

// settle compares what is stored in the end with what was issued.
func (m *model) settle() {
	time.Sleep(time.Minute) // for what is under way
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost != "" {
		return
	}
	m.redis.mu.Lock()
	login, _ := m.redis.now.login.(string)
	m.redis.mu.Unlock()
	r, err := authretry.DecodeRecord([]byte(login))
	require.NoError(m.t, err)
	n := modelNumber(r)
	m.note("%d is stored, %d was issued last", n, m.newest)
	if n == m.newest {
		return
	}
	last := m.spends[m.newest-1]
	switch last.process.mu.Lock(); {
	case last.process.dead:
		m.lose(lostByCrash)
	case len(m.failovers) > 0 && m.failovers[len(m.failovers)-1].After(last.confirmed):
		m.lose(lostByFailover)
	default:
		m.lose("")
	}
	last.process.mu.Unlock()
}

// Processes share a login in Redis. A login is lost only for the reasons that the package comment admits, of which each kind of schedule has
// its own: never if nothing goes wrong, nor because something goes wrong before the lock is confirmed.
func TestModel(t *testing.T) {
	for _, kind := range modelKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			counts, refreshes := map[string]int{}, 0
			for seed := *modelSeed; seed < *modelSeed+*modelSeeds; seed++ {
				m := runModel(t, kind, seed)
				require.Empty(t, m.wrong, "-model.seed=%d -model.seeds=1\n%s", seed, strings.Join(m.trace, "\n"))
				if m.lost != "" {
					counts[m.lost]++
					require.Contains(t, kind.loses, m.lost, "-model.seed=%d -model.seeds=1\n%s", seed, strings.Join(m.trace, "\n"))
				}
				refreshes += m.newest
			}
			t.Logf("%d schedules, %d refreshes, lost: %v", *modelSeeds, refreshes, counts)
			require.Greater(t, refreshes, int(*modelSeeds), "they refresh")
		})
	}
}

// One seed, one schedule.
func TestModelIsRepeatable(t *testing.T) {
	for seed := range uint64(5) {
		kind := modelKinds[len(modelKinds)-1]
		first := runModel(t, kind, seed)
		require.Equal(t, first.trace, runModel(t, kind, seed).trace)
	}
}
