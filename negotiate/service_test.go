package negotiate

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	stdasn1 "encoding/asn1"

	"github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/asnAppTag"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/msgtype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// A testService is a server that wants Negotiate, with the key that the KDC has for it. A token that comes twice is refused.
type testService struct {
	kdc   *testKDC
	ahead time.Duration // of its clock
	only  func() string // the only user who is let in; nil: all
	lie   func(part *messages.EncAPRepPart, key *types.EncryptionKey)
	mute  bool // it proves nothing

	requests, accepted, bare atomic.Int32

	mu    sync.Mutex // guards what follows
	seen  map[string]bool
	users map[string]int
}

func newTestService(k *testKDC) *testService {
	return &testService{kdc: k, seen: map[string]bool{}, users: map[string]int{}}
}

func (s *testService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	io.Copy(io.Discard, r.Body)
	if r.Header.Get("Authorization") == "" {
		s.bare.Add(1)
		w.Header().Set("WWW-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	user, answer, ok := s.accept(tokenIn(r.Header))
	challenge := "Negotiate"
	if answer != nil {
		challenge += " " + base64.StdEncoding.EncodeToString(answer)
	}
	if !s.mute {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.accepted.Add(1)
	s.mu.Lock()
	s.users[user]++
	s.mu.Unlock()
	fmt.Fprint(w, user)
}

// accept judges a token, and answers it.
func (s *testService) accept(token []byte) (user string, answer []byte, ok bool) {
	message, err := requestIn(token)
	if err != nil {
		return "", nil, false
	}
	var req messages.APReq
	if req.Unmarshal(message) != nil {
		return "", nil, false
	}
	s.kdc.mu.Lock()
	err = req.Ticket.DecryptEncPart(s.kdc.keys, &req.Ticket.SName)
	s.kdc.mu.Unlock()
	if err != nil {
		return "", s.krbError(errorcode.KRB_AP_ERR_MODIFIED), false
	}
	now := time.Now().Add(s.ahead).UTC()
	key := req.Ticket.DecryptedEncPart.Key
	if req.DecryptAuthenticator(key) != nil {
		return "", s.krbError(errorcode.KRB_AP_ERR_BAD_INTEGRITY), false
	}
	a := req.Authenticator
	s.mu.Lock()
	id := fmt.Sprint(a.CName, a.CTime, a.Cusec)
	replayed := s.seen[id]
	s.seen[id] = true
	s.mu.Unlock()
	switch {
	case now.Sub(a.CTime).Abs() > 5*time.Minute:
		return "", s.krbError(errorcode.KRB_AP_ERR_SKEW), false
	case now.After(req.Ticket.DecryptedEncPart.EndTime):
		return "", s.krbError(errorcode.KRB_AP_ERR_TKT_EXPIRED), false
	case replayed:
		return "", s.krbError(errorcode.KRB_AP_ERR_REPEAT), false
	}
	user = a.CName.PrincipalNameString()
	if s.only != nil && user != s.only() {
		return "", nil, false
	}
	if !types.IsFlagSet(&req.APOptions, flags.APOptionMutualRequired) {
		return user, nil, true
	}
	return user, s.proof(a, key), true
}

// proof returns the reply that proves that the server could read the ticket.
func (s *testService) proof(a types.Authenticator, key types.EncryptionKey) []byte {
	part := messages.EncAPRepPart{CTime: a.CTime, Cusec: a.Cusec, SequenceNumber: 1}
	if s.lie != nil {
		s.lie(&part, &key)
	}
	plain := must(asn1.Marshal(part))
	sealed := must(crypto.GetEncryptedData(asn1tools.AddASNAppTag(plain, asnAppTag.EncAPRepPart), key, keyusage.AP_REP_ENCPART, 0))
	rep := must(asn1.Marshal(messages.APRep{PVNO: 5, MsgType: msgtype.KRB_AP_REP, EncPart: sealed}))
	return respToken(acceptCompleted, idReply, asn1tools.AddASNAppTag(rep, asnAppTag.APREP))
}

func (s *testService) krbError(code int32) []byte {
	e := messages.NewKRBError(types.NewPrincipalName(1, "HTTP/www.example.test"), testRealm, code, "")
	e.STime, e.Susec = time.Now().Add(s.ahead).UTC().Truncate(time.Second), 0
	return respToken(2, idError, must(e.Marshal()))
}

// respToken returns a reply of the server's (RFC 4178 §4.2.2).
func respToken(state int, id string, message []byte) []byte {
	inner := must(framed(oidKrb5(), id, message))
	seq := must(stdasn1.Marshal(negTokenResp{stdasn1.Enumerated(state), oidKrb5(), inner, nil}))
	return must(stdasn1.Marshal(stdasn1.RawValue{Class: 2, Tag: 1, IsCompound: true, Bytes: seq}))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// by is a RoundTripper that asks a handler, without a network.
type by struct{ http.Handler }

func (b by) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	b.ServeHTTP(rec, in)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}
