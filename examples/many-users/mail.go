package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"

	"golang.org/x/oauth2"
)

// A mailAPI is in place of an API with OAuth 2.0 tokens, and of the authorization server that issues them. Each token is one
// user's, and the mail is that of the token's user. It records what arrives.
type mailAPI struct {
	mu      sync.Mutex // guards everything below
	access  map[string]*accessToken
	refresh map[string]string // users, by refresh tokens, each of which is good once
	calls   []mailCall
	grants  []string // the users of the token requests; "" if one was refused
}

type accessToken struct {
	user string
	uses int // that are left
}

// A mailCall is a request for mail.
type mailCall struct {
	path   string
	header http.Header
	user   string // whose token it had; "" if none is known
	status int
}

// login returns the first tokens of a user.
func (m *mailAPI) login(user string) *oauth2.Token {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.access == nil {
		m.access, m.refresh = map[string]*accessToken{}, map[string]string{}
	}
	t := &oauth2.Token{AccessToken: rand.Text(), RefreshToken: rand.Text(), TokenType: "Bearer"}
	m.access[t.AccessToken] = &accessToken{user, math.MaxInt}
	m.refresh[t.RefreshToken] = user
	return t
}

// expire ends a user's access tokens after some more uses, whatever the client believes.
func (m *mailAPI) expire(user string, uses int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.access {
		if t.user == user {
			t.uses = min(t.uses, uses)
		}
	}
}

// revoke ends a user's login, as the user can do there.
func (m *mailAPI) revoke(user string) {
	m.expire(user, 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.refresh, func(_, u string) bool { return u == user })
}

// records returns what has arrived so far.
func (m *mailAPI) records() (calls []mailCall, grants []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls), slices.Clone(m.grants)
}

func (m *mailAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/token":
		m.serveToken(w, r)
		return
	case "/revoke":
		m.serveRevocation(r)
		return
	}
	w.Header().Set("Set-Cookie", "session=of-the-api; Path=/")
	user, status := m.check(r)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "a letter to %s", user)
}

func (m *mailAPI) check(r *http.Request) (user string, status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	status = http.StatusUnauthorized
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if t := m.access[token]; t != nil {
		if user = t.user; t.uses > 0 {
			t.uses--
			status = http.StatusOK
		}
	}
	m.calls = append(m.calls, mailCall{r.URL.Path, r.Header.Clone(), user, status})
	return user, status
}

// serveToken is the token endpoint: it takes refresh tokens (RFC 6749 §6).
func (m *mailAPI) serveToken(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	old := r.PostFormValue("refresh_token")
	user := m.refresh[old]
	delete(m.refresh, old)
	m.grants = append(m.grants, user)
	m.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if user == "" {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant"})
		return
	}
	t := m.login(user)
	json.NewEncoder(w).Encode(map[string]any{
		"access_token": t.AccessToken, "refresh_token": t.RefreshToken, "token_type": "Bearer", "expires_in": 3600,
	})
}

// serveRevocation is the revocation endpoint (RFC 7009): a refresh token ends, and so does the access token.
func (m *mailAPI) serveRevocation(r *http.Request) {
	token := r.PostFormValue("token")
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refresh, token)
	delete(m.access, token)
}

// logins returns whose logins there are.
func (m *mailAPI) logins() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Values(m.refresh))
}
