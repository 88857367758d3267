package authretry

import (
	"context"
	"log/slog"
	"time"
)

// An Event is a step in the authentication of a request, for [Transport.OnEvent]. It has no field that could
// hold a secret: no header, no query, no body.
type Event struct {
	Kind     EventKind
	Origin   string        // "https://api.example.com"; empty where it is not known, as for a background refresh
	Scheme   string        // "Digest"; empty where no scheme is involved
	Realm    string        // of the challenge; empty if there was none
	Attempt  int           // 1 for the first send of the request, 2 for the retry; 0 for a refresh in the background
	Status   int           // of the response, for Challenged, Refused and Done
	Duration time.Duration // Refreshed: of the refresh; Done: from the call of RoundTrip to the response's headers
	Err      error         // what went wrong, if anything did; its text carries no secret of ours
}

// An EventKind says what an [Event] is about.
type EventKind int

// The kinds of [Event], in the order in which a request meets them.
const (
	EventAuthorized EventKind = iota + 1 // credentials were put on a request: ahead (Attempt 1) or in answer (Attempt 2)
	EventChallenged                      // the server refused and said what it wants
	EventRefreshing                      // a new token is being fetched
	EventRefreshed                       // the fetch has ended, with a token or with Err
	EventReplayed                        // the request is being sent again
	EventRefused                         // the response returned to the caller is a refusal; Explain says why
	EventUnverified                      // the server's rspauth is wrong or missing (RFC 7616 §3.5)
	EventDone                            // RoundTrip returns
)

var eventNames = [...]string{"", "authorized", "challenged", "refreshing", "refreshed", "replayed", "refused", "unverified", "done"}

// String returns the kind's name in lower case, such as "challenged".
func (k EventKind) String() string {
	if k < 0 || int(k) >= len(eventNames) {
		return "unknown"
	}
	return eventNames[k]
}

// LogEvents returns a function for [Transport.OnEvent] that logs each event to l, or to slog.Default() if l is nil: what
// happens with every request at level Debug, a new token at Info, and refusals and failures at Warn.
//
// The attributes are origin, scheme, realm, attempt, status, duration and error, those that the event has. A realm is
// the server's word, so it is cut to 100 bytes, and left to the handler to quote.
func LogEvents(l *slog.Logger) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		logger := l
		if logger == nil {
			logger = slog.Default()
		}
		if level := e.level(); logger.Enabled(ctx, level) {
			logger.LogAttrs(ctx, level, "authretry: "+e.Kind.String(), e.attrs()...)
		}
	}
}

func (e Event) level() slog.Level {
	switch {
	case e.Err != nil, e.Kind == EventRefused, e.Kind == EventUnverified:
		return slog.LevelWarn
	case e.Kind == EventRefreshed:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (e Event) attrs() []slog.Attr {
	const maxRealm = 100
	var attrs []slog.Attr
	for _, a := range []struct{ name, value string }{{"origin", e.Origin}, {"scheme", e.Scheme}, {"realm", e.Realm[:min(len(e.Realm), maxRealm)]}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if e.Attempt != 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Status != 0 {
		attrs = append(attrs, slog.Int("status", e.Status))
	}
	if e.Duration != 0 {
		attrs = append(attrs, slog.Duration("duration", e.Duration))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return attrs
}

// A reporter tells OnEvent what becomes of one request.
type reporter struct {
	onEvent  func(context.Context, Event) // nil: nobody listens, and nothing is computed
	schemes  []Scheme
	ctx      context.Context // of the request
	origin   origin          // which asks for credentials
	start    time.Time
	attempts int // sends
}

// listen arranges for everything below to report, too.
func (r *reporter) listen() {
	if r.onEvent != nil {
		r.start = time.Now()
		r.ctx = withListener(r.ctx, r.onEvent)
	}
}

// report tells what happened with which Session.
func (r *reporter) report(e Event, l lease) {
	if r.onEvent == nil {
		return
	}
	e.Origin = r.origin.String()
	if l.Session != nil {
		e.Scheme, e.Realm = r.schemes[l.scheme].Name(), l.realm
	}
	if e.Kind == EventDone {
		e.Duration = time.Since(r.start)
	}
	r.onEvent(r.ctx, e)
}

// reportChallenges tells what a refusal asks for.
func (r *reporter) reportChallenges(status int, challenges []Challenge) {
	if r.onEvent == nil {
		return
	}
	e := Event{Kind: EventChallenged, Origin: r.origin.String(), Attempt: r.attempts, Status: status}
	for _, c := range challenges {
		e.Scheme, e.Realm = c.Scheme, c.Params.Get("realm")
		r.onEvent(r.ctx, e)
	}
	if len(challenges) == 0 {
		r.onEvent(r.ctx, e)
	}
}

type listenerKey struct{}

// withListener returns a context through which everything below reports to listen.
func withListener(ctx context.Context, listen func(context.Context, Event)) context.Context {
	return context.WithValue(ctx, listenerKey{}, listen)
}

// listener returns the function that takes ctx's events, or nil if nobody listens.
func listener(ctx context.Context) func(context.Context, Event) {
	listen, _ := ctx.Value(listenerKey{}).(func(context.Context, Event))
	return listen
}
