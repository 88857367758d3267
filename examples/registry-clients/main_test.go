package main

import (
	"strings"
	"testing"
)

func TestOutput(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `go-containerregistry has pushed lab/app:v1: 3 token requests
oras-go has pulled it: sha256:82814dfa148a544bf9254c41618f61b8a554ae4481ca632beb9030f98a22ea5f
oras-go has pushed it as v2: 3 token requests
go-containerregistry has pulled v2: sha256:82814dfa148a544bf9254c41618f61b8a554ae4481ca632beb9030f98a22ea5f
tags: [v1 v2]
all in all 3 token requests
`
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}
