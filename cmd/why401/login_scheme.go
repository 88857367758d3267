package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/dpop"
)

// A loginScheme answers challenges of Bearer, or of DPoP, with what somebody gets by logging in: a Bearer token where the server takes
// one, for its answer then tells of the token alone; or one that is bound to a key, where it asks for DPoP only, or its metadata says
// that it takes no others. Whatever it asks for after that, nobody has to log in twice.
type loginScheme struct {
	name string
	*loginTrial
}

// Name implements authretry.Scheme.
func (s loginScheme) Name() string { return s.name }

// Start implements authretry.Starter: once there is a token, it is sent ahead.
func (s loginScheme) Start(ctx context.Context, req *http.Request) (authretry.Session, error) {
	isBound := s.isBound()
	switch {
	case isBound != (s.name == "DPoP"):
		return nil, nil // the other one does
	case isBound:
		return s.bound.Start(ctx, req)
	}
	return s.bearer.Start(ctx, req)
}

// Answer implements authretry.Scheme.
func (s loginScheme) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	switch {
	case s.isBound():
	case s.name == "DPoP" && s.hasToken(): // for Bearer, for which somebody has logged in
		return nil, authretry.ErrCredentialsRefused
	case s.name != "DPoP":
		session, err := s.bearer.Answer(ctx, c, refusal)
		if !errors.Is(err, discover.ErrBoundTokens) {
			return session, err
		}
	}
	s.bind()
	if c != nil {
		if err := s.checkAlgorithms("Its challenge", strings.Fields(c.Params.Get("algs"))); err != nil {
			return nil, err
		}
	}
	return s.bound.Answer(ctx, c, refusal)
}

// WantsRemoteAddr says that discovery wants to know where the server is.
func (s loginScheme) WantsRemoteAddr() bool { return true }

// isBound reports whether the login is for a token that is bound to a key. There may be no login.
func (t *loginTrial) isBound() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isForKey
}

// hasToken reports whether somebody has logged in.
func (t *loginTrial) hasToken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token != nil
}

// bind says that the login is for a token that is bound to a key.
func (t *loginTrial) bind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isForKey = true
}

// errNoAlgorithm is for a server that names the algorithms of proofs, and not ours.
var errNoAlgorithm = errors.New("the server takes no DPoP proofs signed by ES256, as this program's are")

// checkAlgorithms returns an error if our proofs are of none of the algorithms that somebody names, and notes for the report who does.
func (t *loginTrial) checkAlgorithms(who string, algorithms []string) error {
	if len(algorithms) == 0 || slices.Contains(algorithms, t.bound.Key.Algorithm()) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.namedBy, t.algorithms = who, algorithms
	return errNoAlgorithm
}

// newKey returns a key for one login, which is nowhere but in memory.
func newKey() *dpop.Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	key, err := dpop.NewKey(private)
	if err != nil {
		panic(err) // it takes any key on P-256
	}
	return key
}
