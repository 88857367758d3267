package login

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// A testServer is an authorization server that agrees to everything at once, and takes each code once.
type testServer struct {
	*httptest.Server

	mu        sync.Mutex
	answer    url.Values        // what it says in place of a code, besides state; nil: a code
	asked     int               // how often its page was asked for
	codes     map[string]string // by code: the challenge of PKCE and the redirect URI
	forms     []url.Values      // what its token endpoint got
	polls     int               // that are answered by authorization_pending
	sleepy    time.Duration     // how long a person takes
	deviceSay map[string]any    // what its device authorization endpoint answers
	hangs     func()            // is called by its token endpoint, which then never answers; nil: it does
}

func newServer(t *testing.T) *testServer {
	s := &testServer{codes: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", s.authorize)
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /device", s.device)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// authorization returns how to log in there.
func (s *testServer) authorization() *Authorization {
	return &Authorization{Endpoint: &authretry.TokenEndpoint{URL: s.URL + "/token", ClientID: "cli", Issuer: s.URL},
		URL: s.URL + "/authorize", DeviceURL: s.URL + "/device", Scopes: []string{"read"}}
}

func (s *testServer) authorize(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query := r.URL.Query()
	if query.Get("response_type") != "code" || query.Get("client_id") != "cli" || query.Get("code_challenge_method") != "S256" || len(query.Get("state")) < 20 {
		http.Error(w, "bad request", 400)
		return
	}
	time.Sleep(s.sleepy)
	s.asked++
	answer := url.Values{"state": query["state"]}
	if s.answer == nil {
		code := fmt.Sprint("code-", len(s.codes))
		s.codes[code] = query.Get("code_challenge") + " " + query.Get("redirect_uri")
		answer.Set("code", code)
	}
	for name, values := range s.answer {
		answer[name] = values
	}
	http.Redirect(w, r, query.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

func (s *testServer) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.ParseForm()
	if s.hangs != nil {
		s.hangs()
		<-r.Context().Done()
		return
	}
	s.forms = append(s.forms, r.PostForm)
	w.Header().Set("Content-Type", "application/json")
	refuse := func(code string) {
		w.WriteHeader(400)
		json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "\x1b[31mremote text"})
	}
	switch form := r.PostForm; form.Get("grant_type") {
	case "authorization_code":
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		want := base64.RawURLEncoding.EncodeToString(sum[:]) + " " + form.Get("redirect_uri")
		if s.codes[form.Get("code")] != want {
			refuse("invalid_grant")
			return
		}
		delete(s.codes, form.Get("code"))
	case "urn:ietf:params:oauth:grant-type:device_code":
		if s.polls > 0 {
			s.polls--
			refuse("authorization_pending")
			return
		}
		if s.answer != nil {
			refuse(s.answer.Get("error"))
			return
		}
	default:
		refuse("unsupported_grant_type")
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprint("token-", len(s.forms)), "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r"})
}

func (s *testServer) device(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	said := map[string]any{"device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://auth.example.com/device", "expires_in": 600}
	for name, value := range s.deviceSay {
		said[name] = value
	}
	json.NewEncoder(w).Encode(said)
}

// asks returns how often a person was asked.
func (s *testServer) asks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// tokenRequests returns how many have come.
func (s *testServer) tokenRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.forms)
}

// A visit is what somebody's browser has seen.
type visit struct {
	passed []string // the addresses
	page   string   // at the end
	header http.Header
	status int
	closes bool // the connection is not used again
}

// browse is a person's browser: it follows the redirects.
func browse(ctx context.Context, address string) (*visit, error) {
	v := &visit{}
	client := &http.Client{CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		v.passed = append(v.passed, req.URL.String())
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	v.page, v.header, v.status, v.closes = string(page), resp.Header, resp.StatusCode, resp.Close
	return v, err
}

// agree is a Browser.Open that plays a person who agrees.
func agree(ctx context.Context, address string) error {
	v, err := browse(ctx, address)
	if err == nil && !strings.Contains(v.page, "You are") {
		return errors.New("another page than ours: " + v.page)
	}
	return err
}

// A terminal is what a person reads. It may be read while it is written to.
type terminal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *terminal) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *terminal) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func requirePrintable(t *testing.T, text string) {
	t.Helper()
	require.NotRegexp(t, `[^\n -~§]`, text)
}
