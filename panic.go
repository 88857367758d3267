package authretry

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
)

// contain turns a panic of a Base, a Scheme or a callback into an error of the request.
func (x *exchange) contain(resp **http.Response, err *error) {
	p := recover()
	if p == nil {
		return
	}
	defer func() { _ = recover() }() // as for OnEvent, if it was that
	r := x.rejection(nil, x.calls.missedValues(&panicError{panicText(p)}))
	*resp, *err = nil, r
	if x.body == nil {
		closeBody(x.req)
	}
	x.body.abandon()
	if x.resp != nil {
		x.resp.Body.Close()
	}
	x.done(0, r, r)
}

// caught turns a panic into an error, where it is another goroutine than the caller's that calls.
func (x *exchange) caught(err *error) {
	if p := recover(); p != nil {
		*err = x.rejection(nil, x.calls.missedValues(&panicError{panicText(p)}))
	}
}

// A panicError is a panic of something that was called. Its text leaves out values that could be secrets.
type panicError struct{ text string }

func (e *panicError) Error() string { return "authretry: " + e.text }

// panicText says what has panicked, and where. It is to be called by the function that recovered.
func panicText(value any) string {
	text := fmt.Sprintf("Base, a Scheme or a callback panicked with a value of type %T", value)
	if err, ok := value.(runtime.Error); ok {
		text = "Base, a Scheme or a callback panicked: " + err.Error()
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
