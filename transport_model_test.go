package authretry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzTransportModel has a client at random send requests by a Transport to servers at random, and checks the promises
// that a Transport makes. The input is the script: some bytes for the world, then some for each request, what its
// servers do included. All of it happens in virtual time.
//
// To look for longer: go test -run '^$' -fuzz FuzzTransportModel -fuzztime 2h -fuzzminimizetime 20x -parallel 2
func FuzzTransportModel(f *testing.F) {
	for i := range 4 {
		var seed []byte
		for j := range worldBytes + 6*requestBytes {
			seed = append(seed, byte((j*j*(i+3)+7*j*i+j>>2)%251))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > worldBytes+maxRequests*requestBytes {
			return
		}
		synctest.Test(t, func(t *testing.T) { newModel(t, data).run() })
	})
}

const (
	worldBytes   = 16
	requestBytes = 20
	maxRequests  = 16
)

// A script makes choices. When it is at its end, all choices are 0.
type script struct {
	mu   sync.Mutex
	data []byte
}

func (s *script) pick(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.data) == 0 {
		return 0
	}
	v := int(s.data[0])
	s.data = s.data[1:]
	return v % n
}

func (s *script) rarely() bool { return s.pick(8) == 7 }

func pickOf[T any](s *script, from ...T) T { return from[s.pick(len(from))] }

func (s *script) cut(n int) *script {
	n = min(n, len(s.data))
	part := &script{data: s.data[:n:n]}
	s.data = s.data[n:]
	return part
}

// Delays of the model are multiples of this, and contexts end between two of them, so that it is clear why a request ends.
const tick = 10 * time.Millisecond

// An order is one request of the client, with all that follows from it.
type order struct {
	*script
	m       *model
	account string
	content []byte // of the body
	broken  bool   // the body ends with an error
	cause   error  // with which the context ends
	ends    time.Time
	current *call // the latest RoundTrip
	hops    []string
}

// A call is one call of RoundTrip.
type call struct {
	*order
	req      *http.Request
	floor    int // of versions, at its begin
	sends    int
	refused  []string
	done     int // EventDone
	returned bool
	byCause  bool      // Base ended with the context
	reset    time.Time // when the connection was, the last time
}

type orderKey struct{}

func orderIn(ctx context.Context) *order {
	o, _ := ctx.Value(orderKey{}).(*order)
	return o
}

func (m *model) run() {
	orders := make([]*script, 0, maxRequests)
	for len(m.script.data) > 0 {
		orders = append(orders, m.script.cut(requestBytes))
	}
	var workers sync.WaitGroup
	for w := range m.workers {
		workers.Go(func() {
			for i := w; i < len(orders); i += m.workers {
				m.step(orders[i])
			}
		})
	}
	workers.Wait()
	time.Sleep(2 * time.Minute) // for what goes on in the background
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.bodies {
		if n := b.closes.Load(); n != 1 {
			m.problemLocked("a body of the caller's (%s) was closed %d times", b.name, n)
		}
	}
	for _, a := range m.answers {
		if !a.isClosed() {
			m.problemLocked("the body of a response with status %d was not closed", a.status)
		}
	}
	for account, n := range m.fetches {
		if calls := m.calls[account]; n > 2*calls+2 {
			m.problemLocked("%d token requests for %d requests of account %q", n, calls, account)
		}
	}
	require.Empty(m.t, strings.Join(m.problems, "\n"))
}

// step does one thing that a program does.
func (m *model) step(s *script) {
	switch s.pick(8) {
	case 0:
		m.login(pickOf(s, m.accounts...), s.pick(2) == 0)
	case 1:
		time.Sleep(tick * pickOf[time.Duration](s, 1, 120, 3000))
	}
	m.request(s)
}

// login gives an account other credentials, and says so, or not.
func (m *model) login(account string, say bool) {
	m.mu.Lock()
	m.versions[account]++
	version := m.versions[account]
	m.mu.Unlock()
	if !say {
		return
	}
	m.transport.Forget(account)
	m.mu.Lock()
	m.floor[account] = max(m.floor[account], version)
	m.mu.Unlock()
}

func (m *model) request(s *script) {
	o := &order{script: s, m: m, account: pickOf(s, m.accounts...)}
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), orderKey{}, o))
	defer cancel(nil)
	after := 5 * time.Minute
	if s.pick(4) == 3 {
		after = tick * pickOf[time.Duration](s, 0, 1, 2, 3, 5, 10, 30, 99, 101, 110)
	}
	after += tick / 2
	o.ends = time.Now().Add(after)
	if o.cause = errors.New("the caller has had enough"); s.pick(2) == 0 {
		o.cause = context.DeadlineExceeded
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, o.ends)
		defer stop()
	} else {
		defer time.AfterFunc(after, func() { cancel(o.cause) }).Stop()
	}

	req, err := http.NewRequestWithContext(ctx, pickOf(s, "GET", "POST", "PUT", "DELETE"), m.pickOrigin(s)+pickOf(s, "/", "/a/b", "/q?x=1"), nil)
	require.NoError(m.t, err)
	req.Header.Set("X-Account", o.account)
	switch s.pick(8) {
	case 7:
		req.Header.Set("Authorization", "Own thing")
	case 6:
		if req.Host = "kit.test"; req.URL.Host == "plain.test" {
			req.Host = "127.0.0.1:8080"
		} else if req.URL.Host == "kit.test" {
			req.Host = "plain.test"
		}
	}
	o.putBody(req)

	var resp *http.Response
	if s.rarely() {
		resp, err = m.client.Transport.RoundTrip(req)
	} else {
		resp, err = m.client.Do(req)
	}
	if err != nil {
		m.keepsSecret("an error", err.Error())
		return
	}
	if a, ok := resp.Body.(*modelAnswer); ok && resp.StatusCode == http.StatusUnauthorized && a.read.Load() > 0 {
		m.problem("a 401 is returned with its body read")
	}
	if refusal := Explain(resp); refusal != nil {
		m.keepsSecret("an explanation", refusal.Error())
	}
	if o.pick(2) == 0 {
		io.Copy(io.Discard, resp.Body)
	}
	resp.Body.Close()
}

// roundTrip calls the Transport, and checks what it does with what it got and what it returns.
func (m *model) roundTrip(clients *http.Request) (*http.Response, error) {
	req := new(http.Request)
	*req = *clients
	if req.Body = m.taken(clients.Body); clients.GetBody != nil {
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := clients.GetBody()
			return m.taken(body), err
		}
	}
	o := orderIn(req.Context())
	o.hops = append(o.hops, modelAt(req))
	c := &call{order: o, req: req}
	m.mu.Lock()
	c.floor = m.floor[o.account]
	o.current = c
	m.calls[o.account]++
	m.mu.Unlock()
	before, url, header := *req, req.URL.String(), req.Header.Clone()

	resp, err := m.transport.RoundTrip(req)

	m.mu.Lock()
	defer m.mu.Unlock()
	c.returned = true
	after := *req
	switch {
	case url != req.URL.String(), !reflect.DeepEqual(header, req.Header):
		m.problemLocked("the caller's headers or URL were changed: %v", req.Header)
	case before.Body != after.Body, before.Host != after.Host, before.ContentLength != after.ContentLength,
		(before.GetBody == nil) != (after.GetBody == nil), before.Context() != after.Context():
		m.problemLocked("the caller's request was changed")
	}
	if time.Now().After(o.ends) {
		m.problemLocked("RoundTrip returned %v after its context had ended", time.Since(o.ends))
	}
	if m.listens && c.done != 1 {
		m.problemLocked("a request has %d events that it is done", c.done)
	}
	switch {
	case err == nil && (resp.Request == nil || resp.Request.URL.String() != url || resp.Request.Body != before.Body ||
		!reflect.DeepEqual(resp.Request.Header, header)):
		m.problemLocked("the response has another request than the caller's: %+v", resp.Request)
	case err == nil && resp.Body == nil:
		m.problemLocked("a response has no body")
	case err != nil && resp != nil:
		m.problemLocked("RoundTrip returned a response and an error")
	case err != nil && !time.Now().Before(o.ends) && !errors.Is(err, o.cause) && !isRejection(err) && !c.reset.Equal(time.Now()): // which came first
		m.problemLocked("after the end of the context the error is %v", err)
	case err != nil && c.byCause && !errors.Is(err, o.cause):
		m.problemLocked("Base ended with the context, and the error is %v", err)
	}
	return resp, err
}

// isRejection reports whether err says why there are no credentials, which may be known at the very moment that the context ends.
func isRejection(err error) bool {
	_, ok := errors.AsType[*Rejection](err)
	return ok
}

// event notes what the Transport reports.
func (m *model) event(ctx context.Context, e Event) {
	m.keepsSecret("an event", fmt.Sprintf("%+v", e))
	if e.Err != nil {
		m.keepsSecret("an event's error", e.Err.Error())
	}
	if o := orderIn(ctx); o != nil && e.Kind == EventDone {
		m.mu.Lock()
		o.current.done++
		m.mu.Unlock()
	}
}

func (m *model) keepsSecret(what, text string) {
	if strings.Contains(text, modelSecret) {
		m.problem("%s has a secret: %s", what, text)
	}
}

func (m *model) problem(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problemLocked(format, args...)
}

func (m *model) problemLocked(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

// modelContent is what bodies consist of: no two parts of it are the same.
var modelContent = func() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 2<<20; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.Bytes()
}()
