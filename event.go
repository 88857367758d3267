package authretry

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// An Event is a step in the authentication of a request, for [Transport.OnEvent]. It has no field that could
// hold a secret: no header, no query, no body.
type Event struct {
	Kind     EventKind
	Origin   string        // "https://api.example.com"; empty for what happens to a token, which is for all origins
	Scheme   string        // "Digest"; "Digest, Basic" if both are asked for; empty for EventRefused, EventDone and where no scheme is involved
	Realm    string        // of the first challenge, cut to 100 bytes; empty if there was none
	Attempt  int           // 1 for the first send of the request, 2 for the retry; 0 for a refresh in the background
	Status   int           // of the response, for EventChallenged, EventRefused and EventDone
	Reason   Reason        // why the request was refused or not sent, for EventRefused and EventDone; 0 if it was neither
	Duration time.Duration // EventRefreshed: of the refresh; EventDone: until RoundTrip has the response's headers, or an error
	Waited   time.Duration // EventDone: how much of Duration Schemes took to give credentials, as while a token is fetched; without those of a CONNECT
	Err      error         // what went wrong, if anything did; its text carries no secret of ours
}

// An EventKind says what an [Event] is about.
type EventKind int

// The kinds of [Event], in the order in which a request meets them.
const (
	EventAuthorized EventKind = iota + 1 // credentials were put on a request: ahead (Attempt 1) or for the retry (Attempt 2)
	EventChallenged                      // the server refused; Scheme and Realm are what it asks for
	EventRefreshing                      // another token is wanted: by Fetch, or from the Store if it has a newer one
	EventRefreshed                       // that has ended, with a token or with Err; or with both, if the token could not be saved (ErrNotSaved)
	EventNotSaved                        // a token is in use that TokenSource.Store has not saved yet; Err says why
	EventRefused                         // the caller gets a refusal, as a response (Explain says why) or as the error of a CONNECT
	EventUnverified                      // the server's rspauth is wrong or missing (RFC 7616 §3.5)
	EventDone                            // RoundTrip returns: once for each request
)

var eventNames = [...]string{"", "authorized", "challenged", "refreshing", "refreshed", "not saved", "refused", "unverified", "done"}

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
// The attributes are origin, scheme, realm, reason, attempt, status, duration, waited (from a millisecond on) and error, those that
// the event has. A realm is the server's word, so it is cut to 100 bytes, and left to the handler to quote; an error is cut to 2 KiB.
func LogEvents(l *slog.Logger) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		logger := l
		if logger == nil {
			logger = slog.Default()
		}
		if level := e.level(); logger.Enabled(ctx, level) {
			logger.LogAttrs(ctx, level, "authretry: "+e.message(), e.attrs()...)
		}
	}
}

// message is the Kind, in words that do not say that a refresh has brought a token where it has not.
func (e Event) message() string {
	if e.Kind == EventRefreshed && e.Err != nil && !errors.Is(e.Err, ErrNotSaved) {
		return "refresh failed"
	}
	return e.Kind.String()
}

func (e Event) level() slog.Level {
	switch {
	case e.Err != nil, e.Kind == EventRefused:
		return slog.LevelWarn
	case e.Kind == EventRefreshed:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (e Event) attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, a := range []struct{ name, value string }{{"origin", e.Origin}, {"scheme", cut(e.Scheme)}, {"realm", cut(e.Realm)}, {"reason", e.Reason.name()}} {
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
	if e.Waited >= time.Millisecond {
		attrs = append(attrs, slog.Duration("waited", e.Waited))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", cutTo(maxLogged, e.Err.Error())))
	}
	return attrs
}

// listen notes when the request began, for whoever listens.
func (x *exchange) listen() { x.setAside().start = time.Now() }

// report tells what happened with which Session; nil: with none.
func (x *exchange) report(e Event, l *lease) {
	if x.onEvent != nil {
		x.tell(e, l)
	}
}

func (x *exchange) tell(e Event, l *lease) {
	if o := x.origin(); o.host != "" {
		e.Origin = cutTo(maxOriginText, o.String())
	}
	if l != nil {
		e.Scheme, e.Realm = x.schemes[l.scheme()].Name(), cut(l.realm())
	}
	x.onEvent(x.context(), e)
}

// reportChallenges tells what a refusal asks for.
func (x *exchange) reportChallenges(status int, challenges []Challenge) {
	if x.onEvent == nil {
		return
	}
	e := Event{Kind: EventChallenged, Attempt: int(x.attempts), Status: status}
	var names []string
	long := 0 // names that were looked at for what they may repeat
	for i := range challenges {
		name := cut(challenges[i].Scheme)
		if len(names) == 4 || slices.Contains(names, name) {
			continue
		}
		if len(name) >= secretPart {
			if long++; long > 4 || x.repeats(name) {
				continue
			}
		}
		names = append(names, name)
	}
	e.Scheme = strings.Join(names, ", ")
	if len(challenges) > 0 {
		e.Realm = cut(challenges[0].Params.Get("realm"))
	}
	if x.repeats(e.Realm) {
		e.Realm = ""
	}
	x.report(e, nil)
}

// waitedSince notes that a Scheme was asked for credentials at begin, and has ended. It is called if anybody listens.
func (x *exchange) waitedSince(begin time.Time) {
	x.setAside().waited += time.Since(begin)
}

// done tells how the request ended: with a response of that status, or with an error. There is one for each request.
func (x *exchange) done(status int, r *Rejection, err error) {
	if x.onEvent != nil && !x.ended {
		x.tellDone(status, r, err)
	}
}

func (x *exchange) tellDone(status int, r *Rejection, err error) {
	x.ended = true
	e := Event{Kind: EventDone, Attempt: int(x.attempts), Status: status, Waited: x.aside.value().waited, Err: err}
	if r != nil {
		e.Reason = r.Reason
	}
	if start := x.aside.value().start; !start.IsZero() {
		e.Duration = time.Since(start)
	}
	x.tell(e, nil)
}

// lost returns the error with which a send has ended.
func (x *exchange) lost(err error) error {
	if x.onEvent != nil {
		r, _ := errors.AsType[*Rejection](err)
		x.done(0, r, forEvent(err, x.req.URL))
	}
	return err
}

// cut returns a text of the server's for an event, which may end up in a log.
func cut(s string) string { return cutTo(100, s) }

// maxLogged is how many bytes of an error are logged.
const maxLogged = 2 << 10

// cutTo returns the first bytes of a text, which does not keep the rest of it alive.
func cutTo(limit int, s string) string {
	if len(s) <= limit {
		return s
	}
	return strings.Clone(s[:limit])
}

type listenerKey struct{}

// listener returns the function that takes ctx's events, or nil if nobody listens.
func listener(ctx context.Context) func(context.Context, Event) {
	listen, _ := ctx.Value(listenerKey{}).(func(context.Context, Event))
	return listen
}
