package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"golang.org/x/oauth2"
)

// A server shows its users what two APIs have for them: mail, with OAuth 2.0 tokens of each user, and files, by Digest,
// with the password of each user who has given it to us.
type server struct {
	mailAPI   *url.URL          // its origin
	filesAPI  *url.URL          // its origin
	tokens    string            // the folder in which the tokens for the mail API are kept
	passwords map[string]string // for the files API, by user; yours come from a database

	// What gets new tokens for the mail API, and ends them.
	refresh authretry.FetchFunc
	revoke  func(context.Context, *oauth2.Token) error

	// signIn says who logs in, and with which tokens we may read the mail: in place of your login page, and of Exchange
	// of your oauth2.Config.
	signIn func(*http.Request) (user string, token *oauth2.Token, err error)

	sessions    sessions
	mail, files *authretry.Transport // set by handler
}

func (s *server) handler() http.Handler {
	// A request to an API is on behalf of the user in its context, so it is made with the context of the request that it
	// serves. One without a user goes out without credentials.
	account := func(req *http.Request) string { return userOf(req.Context()) }

	// One Transport for all users, but not for both APIs: Bearer sends its token ahead to all Origins, so the files API
	// would get the token for the mail.
	s.mail = &authretry.Transport{
		Account: account,
		Origins: []string{s.mailAPI.String()},
		Schemes: []authretry.Scheme{&authretry.Bearer{Sources: s.tokensOf}},
	}
	s.files = &authretry.Transport{
		Account: account,
		Origins: []string{s.filesAPI.String()},
		Schemes: []authretry.Scheme{&authretry.Digest{Credentials: s.passwordOf}},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.sessions.forUsers(s.logout))
	mux.HandleFunc("/mail/", s.sessions.forUsers(s.mailProxy().ServeHTTP))
	mux.HandleFunc("GET /files/", s.sessions.forUsers(s.showFile))
	return mux
}

// tokensOf returns the source of a user's tokens. It is called once for each user, and again after Forget, or when the user
// has been away for long. A user without tokens in the store gets ErrLoginRequired from the source.
func (s *server) tokensOf(_ context.Context, user string) (oauth2.TokenSource, error) {
	return &authretry.TokenSource{Fetch: s.refresh, Store: filestore.New(s.tokenFile(user))}, nil
}

// tokenFile returns the path of a user's tokens. A name as it is could lead out of the folder, and where case does not
// count, "Alice" would get the tokens of "alice".
func (s *server) tokenFile(user string) string {
	return filepath.Join(s.tokens, fmt.Sprintf("%x.json", sha256.Sum256([]byte(user))))
}

var errNoPassword = errors.New("the user has given us no password for the files")

var errRedirect = errors.New("the files API redirects")

// passwordOf goes by r.Account, since what it returns is used for all requests of that account. A user who has no password
// gets none, rather than one that is somebody else's.
func (s *server) passwordOf(_ context.Context, r authretry.CredentialsRequest) (username, password string, err error) {
	if password = s.passwords[r.Account]; password == "" {
		return "", "", fmt.Errorf("%w: %w", authretry.ErrUnsupportedChallenge, errNoPassword)
	}
	return r.Account, password, nil
}

// mailProxy hands a request on to the mail API, with the user's token. ReverseProxy keeps the context, and so the user.
func (s *server) mailProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: s.mail,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(s.mailAPI)
			// By these the browser has logged in to us, so the API must not see them. And a request that has an
			// Authorization header already would keep it, and get no token.
			r.Out.Header.Del("Authorization")
			r.Out.Header.Del("Cookie")
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("Set-Cookie") // the browser would take it for ours, and could lose its session
			sandbox(resp.Header)
			return authretry.Explain(resp) // for a 401 of the API's it would ask for a password, and send it to us
		},
		ErrorHandler: fail,
	}
}

// showFile calls the files API itself. Its client has no Jar, since a Jar is one user's, and follows no redirects: they may lead to what
// only we can reach, and the user would see it.
func (s *server) showFile(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), "GET", s.filesAPI.String()+r.URL.EscapedPath(), nil)
	var resp *http.Response
	if err == nil {
		resp, err = (&http.Client{Transport: s.files, CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect }}).Do(req)
	}
	if err == nil {
		defer resp.Body.Close()
		err = authretry.Explain(resp)
	}
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	sandbox(w.Header())
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// sandbox keeps scripts in what an API has sent from running as if they were ours: whoever can send the user a letter could read the others.
func sandbox(h http.Header) {
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
}

// fail tells the user what to do, and us the rest. There is no secret in an error of authretry's.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, authretry.ErrLoginRequired):
		http.Error(w, "we can no longer read your mail: please log in again", http.StatusForbidden)
	case errors.Is(err, errNoPassword):
		http.Error(w, "we have no password of yours for the files: please give us one", http.StatusForbidden)
	default:
		log.Printf("%s %q: %v", r.Method, r.URL.Path, err)
		http.Error(w, "something went wrong: please try again later", http.StatusBadGateway)
	}
}
