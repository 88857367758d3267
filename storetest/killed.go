package storetest

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// checkKilled kills a process at each point of an Update.
func checkKilled(k *check) {
	if k.OneProcess {
		return
	}
	for _, p := range []struct {
		name string
		role string
		says []string // what the process is waited for to say; it goes on after each but the last
		min  int      // the Record that is there, at least
		max  int      // and at most
	}{
		{"while it waited for the lock", "wait", []string{"waiting"}, 1, 1},
		{"while its function was at work", "hold", []string{"entered"}, 1, 1},
		{"after confirm", "hold", []string{"entered", "confirmed"}, 1, 1},
		{"while it saved", "hold", []string{"entered", "confirmed", ""}, 1, 2},
		{"after it had saved", "hold", []string{"entered", "confirmed", "saved"}, 2, 2},
	} {
		rounds := 1
		if p.max > p.min {
			rounds = 6 // to meet several points
		}
		for range rounds {
			place := k.newPlace()
			s := k.storeAt(place)
			if !s.save(k.numbered(1)) {
				return
			}
			var h holder
			if p.role == "wait" {
				h = s.hold(nil)
			}
			c := k.start(job{Role: p.role, Place: place})
			defer c.kill()
			for i, line := range p.says {
				if line == "" {
					time.Sleep(rand.N(3 * time.Millisecond))
				} else if !c.says(clauseSaves, line) {
					return
				}
				if i < len(p.says)-1 {
					c.goOn()
				}
			}
			c.kill()
			if h.release != nil {
				if err := h.release(); err != nil {
					k.broken(clauseKilled, "Update failed after a process that waited for the lock was killed: %v", err)
				}
			}
			s.survives("a process was killed "+p.name, p.min, p.max)
		}
	}
}

// survives checks what there is after a kill, and that it goes on.
func (s store) survives(what string, least, most int) (n int) {
	n = s.number()
	switch {
	case n < 0:
		s.k.broken(clauseKilled, "what is there after %s is no whole Record", what)
		return n
	case n < least && least == most:
		s.k.broken(clauseSafe, "after %s there is not what it had saved", what)
	case n < least || n > most:
		s.k.broken(clauseKilled, "after %s there is another Record than the old one and the new one", what)
	}
	err := s.updateAfterKill(func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		now, err := numberOf(current)
		if err == nil && (now < n || now > most) {
			s.k.broken(clauseKilled, "after %s Update's function got another Record than Load", what)
		}
		return s.k.numbered(now + 1), err
	})
	if err != nil {
		s.k.broken(clauseKilled, "Update failed after %s: %v", what, err)
	}
	return n
}

// checkKilledAtRandom kills processes that save all the time. What one of them has seen Update return for must be there.
func checkKilledAtRandom(k *check) {
	const rounds = 10
	if k.OneProcess {
		return
	}
	place := k.newPlace()
	s := k.storeAt(place)
	for range rounds {
		c := k.start(job{Role: "count", Place: place, Times: 1 << 20})
		defer c.kill()
		saved := 0
		for range 1 + rand.IntN(5) {
			line, ok := c.next(clauseFreed)
			if !ok || strings.HasPrefix(line, "error:") {
				k.broken(clauseKilled, "Update failed after a process was killed that saved all the time: %s", line)
				return
			}
			saved = max(saved, numberIn([]string{line}))
		}
		time.Sleep(rand.N(4 * time.Millisecond))
		saved = max(saved, numberIn(c.kill()))
		n := s.survives("a process was killed that saved all the time", 0, saved+1)
		if n >= 0 && n < saved {
			k.broken(clauseSafe, "Update had returned nil for Record %d, and after its process was killed there is Record %d", saved, n)
		}
	}
}
