package authretry

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
)

// contain turns a panic of a Base, a Scheme or a callback into an error of the request. If one of them has ended the goroutine,
// which nobody can prevent, it ends the exchange, and closes what is open.
func (x *exchange) contain(resp **http.Response, err *error) {
	p := recover()
	if p == nil && (*resp != nil || *err != nil) {
		return
	}
	if p != nil {
		failure := error(errPanicked)
		quietly(func() { failure = x.missedValues(&panicError{panicText(p)}) })
		r := &Rejection{Reason: ReasonMisconfigured, Err: failure}
		quietly(func() { r = x.rejection(nil, failure) })
		*resp, *err = nil, r
		defer quietly(func() { x.done(0, r, r) })
	}
	quietly(func() { x.end(nil) })
	if x.body == nil {
		quietly(func() { closeBody(x.req) })
	}
	x.body.abandon()
	quietly(func() { closeSource(x.body.handOver()) }) // the copy that would have been sent
	if x.resp != nil {
		quietly(func() { x.resp.Body.Close() })
	}
}

// quietly calls f, whatever that does.
func quietly(f func()) {
	defer func() { _ = recover() }()
	f()
}

// caught turns a panic into an error, where it is another goroutine than the caller's that calls.
func (x *exchange) caught(err *error) {
	if p := recover(); p != nil {
		*err = x.rejection(nil, x.missedValues(&panicError{panicText(p)}))
	}
}

// apart calls f in a goroutine of its own, so that neither a panic nor the end of that goroutine reaches whoever calls: who else
// would tell those that wait? What it panics with becomes an error by asError.
func apart(asError func(value any) error, f func() error) error {
	err, done := error(errEnded), make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = asError(p)
			}
		}()
		err = f()
	}()
	<-done
	return err
}

var (
	errPanicked = &panicError{"Base, a Scheme or a callback panicked"}
	errEnded    = &panicError{"a callback has ended its goroutine (runtime.Goexit, as FailNow of package testing does)"}
	errBodyGone = &panicError{"the request's body panicked when it was read, or has ended the goroutine, or returned a number of bytes that cannot be"}
)

// A panicError is a panic of something that was called. Its text leaves out values that could be secrets.
type panicError struct{ text string }

func (e *panicError) Error() string { return "authretry: " + e.text }

// panicText says what has panicked, and where. It is to be called by the function that recovered.
func panicText(value any) string { return panicTextOf("Base, a Scheme or a callback", value) }

// panicTextOf is panicText, for what may have panicked.
func panicTextOf(what string, value any) string {
	text := fmt.Sprintf("%s panicked with a value of type %T", what, value)
	if err, ok := value.(runtime.Error); ok {
		text = what + " panicked: " + err.Error()
	}
	var callers [32]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers[:])])
	panicking := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicking && !inRuntime {
			return fmt.Sprintf("%s, in %s, line %d", text, frame.Function, frame.Line)
		}
		if panicking = panicking || inRuntime; !more {
			return text
		}
	}
}
