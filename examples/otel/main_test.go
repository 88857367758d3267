package main

import (
	"strings"
	"testing"
)

func TestOutput(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	const want = `GET /
   authretry.authorized
   authretry.done
GET /
   authretry.authorized
   authretry.challenged
   authretry.refreshing
   authretry.refreshed
   authretry.authorized
   authretry.done
GET /
   authretry.authorized
   authretry.challenged
   authretry.refreshing
   authretry.refreshed
   authretry.authorized
   authretry.done
authretry.events map[authorized:5 challenged:2 done:3 refreshed:2 refreshing:2]
authretry.refresh.duration count 2
`
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}
