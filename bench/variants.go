package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"golang.org/x/oauth2"
)

const boundSignature = "bound: ES256" // what a proof of DPoP cannot do without

// accountHeader says on whose behalf a request is sent: a field that costs no more than it has to.
const accountHeader = "X-Account"

func staticSource(access, tokenType string) *authretry.TokenSource {
	return &authretry.TokenSource{Initial: &oauth2.Token{AccessToken: access, TokenType: tokenType},
		Fetch: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return nil, errors.New("no") }}
}

// accountsOp sends requests on behalf of n accounts in turn, each of which has been seen before.
func accountsOp(n int, rt http.RoundTripper) (op func() error, err error) {
	names := make([]string, n)
	req := newRequest()
	i := 0
	op = func() error {
		req.Header[accountHeader] = names[i : i+1 : i+1]
		if i++; i == n {
			i = 0
		}
		_, err := rt.RoundTrip(req)
		return err
	}
	for k := range names {
		names[k] = "user-" + strconv.Itoa(k)
	}
	for range names {
		if err := op(); err != nil {
			return nil, err
		}
	}
	return op, nil
}

// oauth2ByAccount is a Transport of oauth2 for each account, as one writes it without authretry.
type oauth2ByAccount struct {
	mu  sync.RWMutex
	all map[string]*oauth2.Transport
}

func (o *oauth2ByAccount) RoundTrip(req *http.Request) (*http.Response, error) {
	name := req.Header.Get(accountHeader)
	o.mu.RLock()
	t := o.all[name]
	o.mu.RUnlock()
	if t == nil {
		t = &oauth2.Transport{Base: atOnce, Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: name})}
		o.mu.Lock()
		o.all[name] = t
		o.mu.Unlock()
	}
	return t.RoundTrip(req)
}

// signature is what a proof of DPoP cannot do without: two hashes, a signature, and base64.
func signature(key *ecdsa.PrivateKey, access string) (string, error) {
	ath := sha256.Sum256([]byte(access))
	sum := sha256.Sum256(ath[:])
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	return base64.RawURLEncoding.EncodeToString(sig), err
}

// variantsRow measures what a request costs with more than one token for all.
func variantsRow(e effort) ([]timing, error) {
	const access = "ya29.a0AfH6SMBx-9Z3vJ2"
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := dpop.NewKey(private)
	if err != nil {
		return nil, err
	}
	over := func(s authretry.Scheme) *authretry.Transport {
		return &authretry.Transport{Base: atOnce, Schemes: []authretry.Scheme{s}}
	}
	sending := func(rt http.RoundTripper) func() error {
		req := newRequest()
		return func() error {
			_, err := rt.RoundTrip(req)
			return err
		}
	}
	cs := []contender{
		{name: ours, op: sending(over(&authretry.Bearer{Source: staticSource(access, "Bearer")}))},
		{name: "StepUp", op: sending(over(&authretry.Bearer{Source: staticSource(access, "Bearer"), StepUp: true}))},
		{name: "DPoP", op: sending(over(&dpop.Scheme{Source: staticSource(access, "DPoP"), Key: key}))},
		{name: boundSignature, op: func() error {
			_, err := signature(private, access)
			return err
		}},
	}
	for _, n := range []int{1, e.replicas, 100 * e.replicas} {
		t := over(&authretry.Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
			return staticSource(account, "Bearer"), nil
		}})
		t.Account = func(req *http.Request) string { return req.Header.Get(accountHeader) }
		for name, rt := range map[string]http.RoundTripper{"%d accounts": t, "oauth2, %d accounts": &oauth2ByAccount{all: map[string]*oauth2.Transport{}}} {
			op, err := accountsOp(n, rt)
			if err != nil {
				return nil, err
			}
			cs = append(cs, contender{name: fmt.Sprintf(name, n), op: op})
		}
	}
	timings, err := compare(e, 1, ours, cs...)
	return timings, err
}

func variantRows(r *report, e effort) error {
	r.printf("## Bearer, with more than one token for all\n\nThe base answers at once. Requests of accounts take turns. oauth2 has a Transport for each account, in a map under a lock. " +
		"The bound of DPoP is its signature alone.\n\n")
	timings, err := variantsRow(e)
	if err != nil {
		return err
	}
	r.timings(ours, timings)
	many, peer := named(timings, fmt.Sprintf("%d accounts", 100*e.replicas)), named(timings, fmt.Sprintf("oauth2, %d accounts", 100*e.replicas))
	r.judge(fmt.Sprintf("Bearer, %d accounts", 100*e.replicas), "at most oauth2 with a map, 5 allocations", many.wrong == "" && many.ratio.median <= peer.ratio.median && many.allocs <= 5,
		fmt.Sprintf("%.2f × one token, %.0f allocations", many.ratio.median, many.allocs), fmt.Sprintf("oauth2 with a map: %.2f ×, %.0f allocations", peer.ratio.median, peer.allocs))
	proof, least := named(timings, "DPoP"), named(timings, boundSignature)
	r.judge("DPoP, ES256", "at most 1.5 × its signature", proof.wrong == "" && proof.ns.median <= 1.5*least.ns.median,
		fmt.Sprintf("%.2f × its signature, %.0f allocations", proof.ns.median/least.ns.median, proof.allocs), "none has it")
	return nil
}

// postRow sends POST requests of 200 bytes one after the other over loopback, to a server that wants Digest or a Bearer token.
func postRow(e effort, digest bool) ([]loopbackResult, error) {
	token := &oauth2.Token{AccessToken: "t"}
	build := map[string]func(base http.RoundTripper) http.RoundTripper{
		noAuth: func(base http.RoundTripper) http.RoundTripper { return base },
		ours: func(base http.RoundTripper) http.RoundTripper {
			if digest {
				return digestPeers(base)[ours]
			}
			return bearerPeers(base, token)[ours]
		},
	}
	if digest {
		build["icholy"] = func(base http.RoundTripper) http.RoundTripper { return digestPeers(base)["icholy"] }
	} else {
		build["oauth2"] = func(base http.RoundTripper) http.RoundTripper { return bearerPeers(base, token)["oauth2"] }
	}
	return loopback(e, build, func(name string) *digestServer {
		s := newDigestServer(md5Hashing, digest && name != noAuth, false)
		if !digest && name != noAuth {
			s.bearer = "Bearer " + token.AccessToken
		}
		return s
	}, func(url string) (*http.Request, error) {
		return http.NewRequest("POST", url, bytes.NewReader(make([]byte, 200)))
	})
}

func postRows(r *report, e effort) error {
	r.printf("## A POST of 200 bytes over loopback\n\nOne request after the other. Writes are those of the client to its connection.\n\n")
	for _, digest := range []bool{false, true} {
		name := "POST of 200 bytes, Bearer"
		if digest {
			name = "POST of 200 bytes, Digest"
		}
		results, err := postRow(e, digest)
		if err != nil {
			return err
		}
		var rows []string
		var our, peer loopbackResult
		for _, x := range results {
			rows = append(rows, fmt.Sprintf("%s | %.2f | %.2f | %.2f (%.2f to %.2f) | %s | %s", x.name, x.hits, x.writes, x.ratio.median, x.ratio.p10, x.ratio.p90, duration(x.ns.median), x.wrong))
			switch x.name {
			case ours:
				our = x
			case noAuth:
			default:
				peer = x
			}
		}
		r.printf("%s:\n\n", name)
		r.table("who | server hits a request | writes a request | × no auth | time | wrong", rows)
		said := func(x loopbackResult) string {
			return fmt.Sprintf("%.2f hits, %.2f writes, %.2f ×", x.hits, x.writes, x.ratio.median)
		}
		r.judge(name, "1.0 hits, 1.0 writes, at most 1.3 × no auth", our.wrong == "" && our.hits == 1 && our.writes == 1 && our.ratio.median <= 1.3,
			said(our), peer.name+": "+said(peer))
	}
	return nil
}
