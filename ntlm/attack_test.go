package ntlm_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// A server that answers whatever comes with a message of its own is asked no more often than any other.
func TestEndless401sWithTokens(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.passwords = nil
		l.challenge = func(w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", "NTLM "+base64.StdEncoding.EncodeToString(message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags}.bytes()))
		}
	})
	client := newClient(t, nil, nil)
	for range 3 {
		status, _ := do(t, client, newRequest(t, "POST", l.URL+"/a", strings.NewReader("body")))
		require.Equal(t, 401, status)
		require.Equal(t, []string{"POST /a", "POST /a 1", "POST /a 3"}, l.take())
	}
}

// What is wrong with a server's message fails the request, and nothing that knows the password is sent.
func TestBadMessages(t *testing.T) {
	good := func() message2 { return message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags} }
	for name, c := range map[string]struct {
		message func() []byte
		text    string
	}{
		"empty":                    {func() []byte { return []byte{0} }, "is no NTLM challenge"},
		"cut off":                  {func() []byte { return good().bytes()[:31] }, "is no NTLM challenge"},
		"a first message":          {func() []byte { b := good().bytes(); b[8] = 1; return b }, "is no NTLM challenge"},
		"another protocol":         {func() []byte { b := good().bytes(); b[0] = 'X'; return b }, "is no NTLM challenge"},
		"attributes over the name": {func() []byte { m := good(); m.offset = 56; return m.bytes() }, "have no end"},
		"no end":                   {func() []byte { m := good(); m.info = pair(1, utf16LE("WWW")); return m.bytes() }, "have no end"},
		"too many": {func() []byte {
			m := good()
			m.info = append([]byte(strings.Repeat("\x01\x00\x00\x00", 100)), 0, 0, 0, 0)
			return m.bytes()
		}, "have no end"},
		"an attribute that is longer than all": {func() []byte { m := good(); m.info = []byte{1, 0, 0xff, 0xff, 0, 0, 0, 0}; return m.bytes() }, "have no end"},
		"a time of three bytes":                {func() []byte { m := good(); m.info = append(pair(7, []byte("123")), pair(0, nil)...); return m.bytes() }, "has not 8 bytes"},
		"64 KiB":                               {func() []byte { return append(good().bytes(), make([]byte, 64<<10)...) }, "and may have 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(l *lab) { l.message = func([]byte) []byte { return c.message() } })
			client := newClient(t, nil, nil)
			_, err := client.Post(l.URL+"/a", "text/plain", strings.NewReader("body"))
			var r *authretry.Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, authretry.ReasonNoCredentials, r.Reason)
			require.Equal(t, l.URL, r.Origin)
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, fmt.Sprintf("%v %+v", err, r), secret)
			require.Equal(t, []string{"POST /a", "POST /a 1"}, l.take())
		})
	}
	for name, token := range map[string]string{"no base64": "NTLM TlRMT", "no token": "NTLM ????", "none": "NTLM", "another scheme's": "Negotiate TlRMTVNTUAA="} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(l *lab) {
				l.second = func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("WWW-Authenticate", token)
					w.WriteHeader(401)
					return true
				}
			})
			resp, err := newClient(t, nil, nil).Get(l.URL + "/a")
			if name == "no base64" {
				require.ErrorContains(t, err, "is not base64")
			} else {
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				resp.Body.Close()
			}
			require.Equal(t, []string{"GET /a", "GET /a 1"}, l.take())
		})
	}
}

// What a server asks for does not make the answer weaker, nor does what it says in the client's name get into it.
func TestAnswerIsNTLMv2WhateverIsAsked(t *testing.T) {
	for name, change := range map[string]func(*message2){
		"no flags":            func(m *message2) { m.flags = 0 },
		"all flags":           func(m *message2) { m.flags = 0xffffffff },
		"OEM":                 func(m *message2) { m.flags = m.flags&^1 | 2 },
		"LM key":              func(m *message2) { m.flags |= 1 << 7 },
		"key exchange":        func(m *message2) { m.flags |= 1 << 30 },
		"no attributes":       func(m *message2) { m.info = nil },
		"attributes outside":  func(m *message2) { m.offset = 1 << 20 },
		"at the end of all":   func(m *message2) { m.offset = 0xffffffff },
		"too many attributes": func(m *message2) { m.length = 0xffff },
		"attributes in front": func(m *message2) { m.offset = 8 },
		"cut off":             func(*message2) {},
		"the client's part":   func(m *message2) { m.info = clientsPart() },
		"attributes are told": func(m *message2) { m.flags &^= 1 << 23 },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(l *lab) {
				l.message = func(nonce []byte) []byte {
					m := message2{nonce: nonce, info: targetInfo(), flags: usualFlags}
					change(&m)
					if name == "cut off" {
						return m.bytes()[:60] // in the middle of the name
					}
					return m.bytes()
				}
			})
			require.Equal(t, "hello mufasa, 0 bytes", getOK(t, newClient(t, nil, nil), l.URL))
			require.False(t, l.last.hasSessionKey)
			require.Empty(t, l.last.lm)
			require.Equal(t, "HTTP/127.0.0.1", fromUTF16LE(l.last.pairs[9]))
			require.NotContains(t, l.last.pairs, uint16(10), "no TLS")
			require.NotContains(t, l.last.pairs, uint16(6))
		})
	}
}

// clientsPart is what only a client may say: flags, a machine, a service, channel bindings.
func clientsPart() (b []byte) {
	for _, id := range []uint16{6, 8, 9, 10} {
		b = append(b, pair(id, binary.LittleEndian.AppendUint64(nil, 0xffffffffffffffff))...)
	}
	return append(b, pair(0, nil)...)
}

// A server that changes from NTLM to Basic gets no password.
func TestChangeFromNTLMToBasic(t *testing.T) {
	for _, when := range []string{"in place of the server's message", "after the login"} {
		t.Run(when, func(t *testing.T) {
			basic := func(w http.ResponseWriter) {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(401)
			}
			var changed atomic.Bool
			l := newLab(t, func(l *lab) {
				l.second = func(w http.ResponseWriter, _ *http.Request) bool {
					if when != "after the login" {
						basic(w)
					}
					return when != "after the login"
				}
				l.after = func(w http.ResponseWriter, _ *http.Request) bool {
					if changed.Load() {
						basic(w)
					}
					return changed.Load()
				}
			})
			client := newClient(t, nil, nil)
			want := 401
			if when == "after the login" {
				want = 200
			}
			status, _ := do(t, client, newRequest(t, "GET", l.URL, nil))
			require.Equal(t, want, status)
			changed.Store(true)
			status, _ = do(t, client, newRequest(t, "GET", l.URL, nil))
			require.Equal(t, 401, status)
			for _, request := range l.take() {
				require.NotContains(t, request, "Basic")
			}
		})
	}
}

// The body of a refusal that never ends ends the handshake.
func TestRefusalWithoutEnd(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.second = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", "NTLM "+base64.StdEncoding.EncodeToString(message2{nonce: make([]byte, 8), info: targetInfo(), flags: usualFlags}.bytes()))
			w.WriteHeader(401)
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1024)); err != nil {
					return true
				}
			}
		}
	})
	_, err := newClient(t, nil, nil).Get(l.URL)
	require.ErrorContains(t, err, "does not end")
	require.Equal(t, []string{"GET /", "GET / 1"}, l.take())
}

// A connection that is closed in the middle of a handshake is replaced once.
func TestConnectionClosedInTheMiddle(t *testing.T) {
	for _, closes := range []string{"1", "2", "3"} {
		for _, times := range []int{1, 100} {
			t.Run(fmt.Sprint(closes, " ", times), func(t *testing.T) {
				var mu sync.Mutex
				left := times
				hangUp := func(w http.ResponseWriter) bool {
					mu.Lock()
					defer mu.Unlock()
					if left == 0 {
						return false
					}
					left--
					conn, _, _ := w.(http.Hijacker).Hijack()
					conn.Close()
					return true
				}
				l := newLab(t, func(l *lab) {
					l.second = func(w http.ResponseWriter, _ *http.Request) bool {
						if closes == "2" {
							mu.Lock()
							defer mu.Unlock()
							if left > 0 {
								left--
								w.Header().Set("Connection", "close")
							}
							return false
						}
						return closes == "1" && hangUp(w)
					}
					l.after = func(w http.ResponseWriter, _ *http.Request) bool { return closes == "3" && hangUp(w) }
				})
				scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
				client := newClient(t, scheme, nil)
				resp, err := client.Get(l.URL)
				require.LessOrEqual(t, int(l.firsts.Load()), 2)
				if times == 1 {
					require.NoError(t, err)
					require.Equal(t, 200, resp.StatusCode)
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				} else {
					require.Error(t, err)
					if closes == "2" {
						require.ErrorContains(t, err, "closes the connection between NTLM's messages")
					}
					_, conns := scheme.Pools()
					require.Zero(t, conns)
				}
			})
		}
	}
}

// A body of which something was read is not sent again when its connection is closed, unless it can be had twice.
func TestBodyIsNotSentTwiceWhenAConnectionIsClosed(t *testing.T) {
	var closes atomic.Bool
	var closed atomic.Int32
	l := newLab(t, func(l *lab) {
		l.after = func(w http.ResponseWriter, r *http.Request) bool {
			if !closes.Load() {
				return false
			}
			io.Copy(io.Discard, r.Body)
			closed.Add(1)
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return true
		}
	})
	client := newClient(t, nil, nil)
	getOK(t, client, l.URL)
	closes.Store(true)
	_, err := client.Post(l.URL, "text/plain", strings.NewReader("body"))
	require.Error(t, err)
	require.EqualValues(t, 1, closed.Load(), "a POST may have been carried out")

	req := newRequest(t, "POST", l.URL, strings.NewReader("body"))
	req.Header.Set("Idempotency-Key", "1")
	_, err = client.Do(req)
	require.Error(t, err)
	require.EqualValues(t, 3, closed.Load())
}

// What one user's connections have proved is not used for another, whoever asks, and however their requests mix.
func TestConnectionsOfOneUserCarryNobodyElse(t *testing.T) {
	l := newLab(t, nil)
	accounts := []string{"alice", "bob", "carol"}
	for _, a := range accounts {
		l.passwords[a] = secret + a
	}
	scheme := &ntlm.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		return r.Account, secret + r.Account, nil
	}}
	var transport *authretry.Transport
	client := newClient(t, scheme, func(tr *authretry.Transport, _ *http.Transport) {
		tr.Account = func(req *http.Request) string { return req.Header.Get("X-User") }
		transport = tr
	})
	var all sync.WaitGroup
	for w := range 12 {
		all.Go(func() {
			for i := range 30 {
				account := accounts[(w+i)%3]
				req, _ := http.NewRequest("GET", l.URL+"/a", nil)
				req.Header.Set("X-User", account)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "hello "+account+", 0 bytes" {
					t.Errorf("for %s the server says %q", account, body)
				}
				if i%7 == 0 {
					transport.Forget(accounts[i%3])
				}
			}
		})
	}
	all.Wait()

	// Nobody's request has nobody's connection.
	status, _ := do(t, client, newRequest(t, "GET", l.URL+"/a", nil))
	require.Equal(t, 401, status)
}

// What was made for one user or place refuses to carry anything else, even if it is told to.
func TestCarrierRefusesOthers(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	refusal := &http.Response{StatusCode: 401, Header: http.Header{}, Request: newRequest(t, "GET", l.URL, nil)}
	session, err := scheme.Answer(t.Context(), &authretry.Challenge{Scheme: "NTLM"}, refusal)
	require.NoError(t, err)
	_, err = session.(authretry.Carrier).Carry(t.Context(), roundTripFunc(nil))
	require.ErrorContains(t, err, "must be an *http.Transport")
	by, err := session.(authretry.Carrier).Carry(t.Context(), &http.Transport{})
	require.NoError(t, err)
	resp, err := by.RoundTrip(newRequest(t, "GET", l.URL, nil))
	require.NoError(t, err)
	resp.Body.Close()
	body := &closing{Reader: strings.NewReader("x")}
	_, err = by.RoundTrip(newRequest(t, "POST", "http://another.test/", body))
	require.ErrorContains(t, err, "to another origin")
	require.True(t, body.closed)
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }
