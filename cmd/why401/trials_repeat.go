package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// mostRepeats is how often -repeat asks again at most. Each time, a wrong password counts.
const mostRepeats = 20

// repeats is what came of -repeat: of asking the same again, each time on a new connection.
type repeats struct {
	all     []attempt // that had an answer, the first question's among them
	http1   *attempt  // the one over HTTP/1.1, where the first question went over HTTP/2; nil: there is none
	differs bool      // one is refused, and another is not
}

// checkRepeat checks the flag -repeat.
func (q *question) checkRepeat() error {
	switch {
	case q.repeat < 0 || q.repeat > mostRepeats:
		return usagef("-repeat takes a number up to %d", mostRepeats)
	case q.repeat > 0 && !isSafe(q.method):
		return usagef("-repeat is for GET, HEAD and OPTIONS, which change nothing")
	case q.repeat > 0 && q.login.wanted:
		return usagef("-repeat is not for -login; use it with -token-env or -token-file")
	}
	return nil
}

// askRepeatedly asks again as often as -repeat says, or until an answer differs: over HTTP/1.1 first, if the first answer came over HTTP/2.
func (in *inquiry) askRepeatedly(ctx context.Context) {
	if in.repeat == 0 || in.err != nil || in.resp == nil {
		return
	}
	found := &in.trials.repeats
	found.all = []attempt{in.attempt}
	for n := 1; n <= in.repeat; n++ {
		m := manner{trial: fmt.Sprintf("once more (%d of %d)", n, in.repeat)}
		if n == 1 && in.resp.ProtoMajor == 2 {
			m = manner{trial: fmt.Sprintf("over HTTP/1.1 (%d of %d)", n, in.repeat), http1: true}
		}
		// Two servers in turn would get all the challenges and all the answers, respectively, if there were two requests each time.
		m.password = strings.EqualFold(in.last(), "Basic")
		again := in.sendAgain(ctx, m)
		if again.resp == nil || again.resp.StatusCode == http.StatusTooManyRequests || again.resp.StatusCode >= 500 {
			return // it is of no more use
		}
		found.all = append(found.all, again)
		if m.http1 {
			found.http1 = &again
		}
		if found.differs {
			return // it was over HTTP/1.1, and this is once more over HTTP/2, which shows whether it is that
		}
		found.differs = again.isRefused() != in.attempt.isRefused()
		if found.differs && !m.http1 {
			return
		}
	}
}

// sendAgain asks again in a manner, and notes it as a trial.
func (in *inquiry) sendAgain(ctx context.Context, m manner) attempt {
	schemes := in.schemes
	again := in.send(ctx, m)
	in.schemes = schemes
	in.addTrial(again)
	return again
}

// unlike is for a server that does not always answer the same.
func (in *inquiry) unlike() *cause {
	found := in.trials.repeats
	if !found.differs {
		return nil
	}
	var refused, passed []attempt
	byHTTP2 := true // only over HTTP/2 it is refused, and always
	for _, a := range found.all {
		if a.isRefused() {
			refused = append(refused, a)
		} else {
			passed = append(passed, a)
		}
		byHTTP2 = byHTTP2 && a.isRefused() == (a.resp.ProtoMajor == 2)
	}
	counts := fmt.Sprintf("Of %d answers, %d refused (%s) and %d did not.", len(found.all), len(refused), statusText(refused[0].resp.StatusCode), len(passed))
	if found.http1 != nil && byHTTP2 {
		sure := likely
		if len(found.all) > 2 {
			sure = certain
		}
		return &cause{"http2-only", sure, "The server refuses over HTTP/2, and not over HTTP/1.1. " + counts + " Header names are in lower case there (authorization, RFC 9113 §8.2): something on the way may look for another case; or HTTP/2 goes to another server.",
			"Use HTTP/1.1, and have the gateway looked at. In a program, it is Base, or the client's Transport: " + overHTTP1 + "."}
	}
	return &cause{"flaky", certain, "The same is refused at one time, and not at another. " + counts + in.whoRefuses(refused, passed) + " So several servers answer, of which one is not like the others; or one that does not always know.",
		"Compare the servers behind this address: keys, clock, settings. Take the one that refuses out of the load balancer until then."}
}

// serverNames are the headers in which servers behind a load balancer name themselves.
var serverNames = []string{"X-Served-By", "X-Backend", "X-Backend-Server", "X-Server", "X-Server-Name", "X-Upstream", "X-Pod-Name", "X-Instance-Id", "X-Node", "X-Host", "Via", "Server"}

// whoRefuses says by what those that refuse differ from those that do not, if they name themselves.
func (in *inquiry) whoRefuses(refused, passed []attempt) string {
	values := func(list []attempt, of func(attempt) string) (values []string) {
		for _, a := range list {
			values = append(values, of(a))
		}
		slices.Sort(values)
		return slices.Compact(values)
	}
	differ := func(name string, of func(attempt) string) string {
		no, yes := values(refused, of), values(passed, of)
		if no[0] == "" || slices.ContainsFunc(no, func(v string) bool { return slices.Contains(yes, v) }) {
			return ""
		}
		return " Of those that refuse, " + name + " is “" + in.clean.text(strings.Join(no, ", "), 100) + "”, and of the others “" + in.clean.text(strings.Join(yes, ", "), 100) + "”."
	}
	for _, name := range serverNames {
		if text := differ(name, func(a attempt) string { return a.resp.Header.Get(name) }); text != "" {
			return text
		}
	}
	return differ("the address", func(a attempt) string { return a.remote })
}

// severalServers is for answers in one exchange from servers that name themselves.
func (in *inquiry) severalServers() *cause {
	if !in.refused() || in.trials.repeats.differs || !in.isSafe() || left(in.requests()) {
		return nil
	}
	for _, name := range serverNames[:len(serverNames)-2] {
		var names []string
		for _, h := range in.hops {
			if h.resp == nil || h.connect {
				continue
			}
			if value := straightQuotes.Replace(h.resp.Header.Get(name)); value != "" && !slices.Contains(names, value) {
				names = append(names, value)
			}
		}
		if len(names) > 1 && strings.EqualFold(in.last(), "Digest") {
			return &cause{"several-servers", likely, "Several servers answer here, and one may not know another's nonce. " + name + " has been “" + in.clean.text(strings.Join(names, "” and “"), 100) + "” within one exchange, and the answer to a Digest challenge is good only where that came from, unless they share it.",
				"Bind clients to one server at the load balancer. Or share the nonce secret between the servers."}
		}
		if len(names) > 1 {
			return &cause{"several-servers", possible, "Several servers answer here, and one of them may refuse. " + name + " has been “" + in.clean.text(strings.Join(names, "” and “"), 100) + "”.",
				"Run it again with -repeat 5, which shows whether they differ. A wrong password counts each time."}
		}
	}
	return nil
}

// sameEachTime notes that -repeat has found nothing.
func (in *inquiry) sameEachTime() *cause {
	if n := len(in.trials.repeats.all); n > 1 && !in.trials.repeats.differs {
		return &cause{"repeated", "", fmt.Sprintf("It was asked %s, and the answer was the same each time.", number(n, "time")), ""}
	}
	return nil
}
