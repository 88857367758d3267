package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log"
	"maps"
	"net/http"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
)

// login puts the new tokens into the store, by a source for that alone. The source in use would go on with older ones, so
// it is forgotten: the next request asks tokensOf for another.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	user, token, err := s.signIn(r)
	if err != nil {
		http.Error(w, "the login has failed", http.StatusForbidden)
		return
	}
	if err := (&authretry.TokenSource{Store: filestore.New(s.tokenFile(user))}).Set(token); err != nil {
		fail(w, r, err)
		return
	}
	s.mail.Forget(user)
	s.sessions.begin(w, user)
}

// logout ends the login in the store, and forgets the user after that, or the next request would go on with what is in
// memory. A request that is out may be getting new tokens at this moment; the store does not take those any more. If the
// authorization server cannot be told, the login has ended here nevertheless.
func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	user := userOf(r.Context())
	s.sessions.end(user)
	err := (&authretry.TokenSource{Store: filestore.New(s.tokenFile(user)), Revoke: s.revoke}).Logout(r.Context())
	if errors.Is(err, authretry.ErrNotRevoked) {
		log.Print(err)
	} else if err != nil {
		fail(w, r, err)
	}
	s.mail.Forget(user)
	s.files.Forget(user)
}

// Sessions say who has logged in, by a cookie. You have something like it; what counts is that the user ends up in the
// request's context, and that nothing else puts one there.
type sessions struct {
	mu    sync.Mutex        // guards users
	users map[string]string // by the value of their cookie
}

type userKey struct{}

// userOf returns the user whom forUsers has found, "" if there is none.
func userOf(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// forUsers lets those pass who have logged in.
func (s *sessions) forUsers(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := ""
		if cookie, err := r.Cookie("session"); err == nil {
			s.mu.Lock()
			user = s.users[cookie.Value]
			s.mu.Unlock()
		}
		if user == "" { // not 401, which has to name a scheme (RFC 9110 §15.5.2), and a login by a form is none
			http.Error(w, "please log in", http.StatusForbidden)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	}
}

// begin begins a session.
func (s *sessions) begin(w http.ResponseWriter, user string) {
	value := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = map[string]string{}
	}
	s.users[value] = user
	http.SetCookie(w, &http.Cookie{Name: "session", Value: value, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
}

// end ends all sessions of a user.
func (s *sessions) end(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.users, func(_, u string) bool { return u == user })
}
