package ntlm_test

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/md4" //lint:ignore SA1019 NTLM has no other
)

const secret = "hunter2-correct-horse"

// A server's part of NTLM, by [MS-NLMP], which judges what the Scheme sends without any code of the Scheme's.

func utf16LE(s string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

func fromUTF16LE(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

func pair(id uint16, value []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, id)
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(value))), value...)
}

// targetInfo is what a domain member says of itself.
func targetInfo() []byte {
	b := append(pair(2, utf16LE("EXAMPLE")), pair(1, utf16LE("WWW"))...)
	b = append(b, pair(7, binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixNano()/100+116444736000000000)))...)
	return append(b, pair(0, nil)...)
}

// A message2 is a server's message, with offsets that can be wrong.
type message2 struct {
	nonce          []byte
	info           []byte
	flags          uint32
	offset, length int // of info; 0: what they are
}

const usualFlags = 1 | 1<<9 | 1<<15 | 1<<16 | 1<<19 | 1<<23 | 1<<25 | 1<<29

func (m message2) bytes() []byte {
	name := utf16LE("EXAMPLE")
	b := binary.LittleEndian.AppendUint32([]byte("NTLMSSP\x00"), 2)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = binary.LittleEndian.AppendUint32(b, 56)
	b = binary.LittleEndian.AppendUint32(b, m.flags)
	b = append(append(b, m.nonce...), make([]byte, 8)...)
	length, offset := len(m.info), 56+len(name)
	if m.length != 0 {
		length = m.length
	}
	if m.offset != 0 {
		offset = m.offset
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(length))
	b = binary.LittleEndian.AppendUint16(b, uint16(length))
	b = binary.LittleEndian.AppendUint32(b, uint32(offset))
	b = append(b, 10, 0, 0x63, 0x45, 0, 0, 0, 15) // Version
	return append(append(b, name...), m.info...)
}

// field returns what a field of a third message leads to.
func field(b []byte, at int) ([]byte, error) {
	if len(b) < 64 {
		return nil, errors.New("the message is too short")
	}
	length, offset := int(binary.LittleEndian.Uint16(b[at:])), int(binary.LittleEndian.Uint32(b[at+4:]))
	if offset < 64 || offset+length > len(b) {
		return nil, errors.New("an offset leads out of the message")
	}
	return b[offset : offset+length], nil
}

// A message3 is what the client's last message says.
type message3 struct {
	domain, user  string
	proof, blob   []byte // NTLMv2's response
	lm            []byte
	pairs         map[uint16][]byte
	workstation   string
	hasSessionKey bool
}

func parse3(b []byte) (m message3, err error) {
	if len(b) < 64 || string(b[:8]) != "NTLMSSP\x00" || binary.LittleEndian.Uint32(b[8:]) != 3 {
		return m, errors.New("it is no third message")
	}
	var fields [6][]byte
	for i := range fields {
		if i == 5 && binary.LittleEndian.Uint16(b[52:]) == 0 {
			break
		}
		if fields[i], err = field(b, 12+8*i); err != nil {
			return m, err
		}
	}
	m = message3{lm: fields[0], domain: fromUTF16LE(fields[2]), user: fromUTF16LE(fields[3]), workstation: fromUTF16LE(fields[4]),
		hasSessionKey: len(fields[5]) > 0, pairs: map[uint16][]byte{}}
	nt := fields[1]
	if len(nt) < 16+28 {
		return m, errors.New("it is not NTLMv2")
	}
	m.proof, m.blob = nt[:16], nt[16:]
	if m.blob[0] != 1 || m.blob[1] != 1 {
		return m, errors.New("it is not NTLMv2")
	}
	for rest := m.blob[28:]; ; {
		if len(rest) < 4 {
			return m, errors.New("its attributes have no end")
		}
		id, length := binary.LittleEndian.Uint16(rest), int(binary.LittleEndian.Uint16(rest[2:]))
		if id == 0 {
			return m, nil
		}
		if 4+length > len(rest) {
			return m, errors.New("an attribute is longer than the message")
		}
		m.pairs[id] = rest[4 : 4+length]
		rest = rest[4+length:]
	}
}

// verify reports whether the message proves the password for a server's nonce ([MS-NLMP] 3.3.2).
func (m message3) verify(password string, nonce []byte) bool {
	hash := md4.New()
	hash.Write(utf16LE(password))
	key := hmacMD5(hash.Sum(nil), utf16LE(strings.ToUpper(m.user)+m.domain))
	return hmac.Equal(m.proof, hmacMD5(key, append(append([]byte{}, nonce...), m.blob...)))
}

func hmacMD5(key, data []byte) []byte {
	mac := hmac.New(md5.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}

// A lab is a server that authenticates connections by NTLM, and what it has seen.
type lab struct {
	*httptest.Server
	domain    string
	passwords map[string]string // by user name
	isPublic  func(*http.Request) bool
	challenge func(w http.ResponseWriter) // in place of a bare "NTLM"
	message   func(nonce []byte) []byte   // the second message
	second    func(w http.ResponseWriter, r *http.Request) bool
	after     func(w http.ResponseWriter, r *http.Request) bool // for who is let in; true: it has answered
	bindings  []byte                                            // of the login, if it must have some
	mu        sync.Mutex                                        // guards what follows
	requests  []string
	last      message3
	users     map[string]bool // who was let in
	bodies    int64           // bytes of bodies that have come
	refusals  int             // of a third message
	conns     map[net.Conn]*labConn
	dialled   atomic.Int32
	open      atomic.Int32
	handshake atomic.Int32 // third messages that were right
	firsts    atomic.Int32
	lost      atomic.Int32 // connections that were authenticated, and are closed
	mistakes  []string
	marks     []string // what was in Authorization, and is no NTLM
}

type labConn struct {
	nonce []byte
	user  string
}

type labKey struct{}

func newLab(t testing.TB, change func(*lab)) *lab {
	l := &lab{domain: "EXAMPLE", passwords: map[string]string{"mufasa": secret}, conns: map[net.Conn]*labConn{}, users: map[string]bool{}}
	l.Server = httptest.NewUnstartedServer(l)
	l.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, labKey{}, c)
	}
	l.Config.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			l.dialled.Add(1)
			l.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			l.open.Add(-1)
			l.mu.Lock()
			if known := l.conns[c]; known != nil && known.user != "" {
				l.lost.Add(1)
			}
			delete(l.conns, c)
			l.mu.Unlock()
		}
	}
	l.Config.ErrorLog = discardLog
	if change != nil {
		change(l)
	}
	if l.TLS != nil {
		l.StartTLS()
	} else {
		l.Start()
	}
	t.Cleanup(func() {
		l.CloseClientConnections()
		l.Close()
		for _, m := range append(l.mistakes, l.marks...) {
			t.Error(m)
		}
	})
	return l
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	word, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	l.requests = append(l.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+kindOf(word, token)))
	if r.Header["Authorization"] != nil && !strings.Contains("13", kindOf(word, token)) {
		l.marks = append(l.marks, r.Header.Get("Authorization"))
	}
	netConn := r.Context().Value(labKey{}).(net.Conn)
	c := l.conns[netConn]
	if c == nil {
		c = &labConn{}
		l.conns[netConn] = c
	}
	l.mu.Unlock()
	if l.isPublic != nil && l.isPublic(r) {
		io.WriteString(w, "public")
		return
	}
	if word == "NTLM" {
		message, err := base64.StdEncoding.DecodeString(token)
		if err != nil || len(message) < 12 {
			l.mistake("a token that cannot be read: %q", token)
			return
		}
		switch message[8] {
		case 1:
			l.first(w, r, c)
			return
		case 3:
			l.third(r, c, message)
		}
	}
	l.mu.Lock()
	who := c.user
	if who != "" {
		l.users[who] = true
	}
	l.mu.Unlock()
	if who == "" {
		l.refuse(w)
		return
	}
	if l.after != nil && l.after(w, r) {
		return
	}
	n, _ := io.Copy(io.Discard, r.Body)
	l.mu.Lock()
	l.bodies += n
	l.mu.Unlock()
	fmt.Fprintf(w, "hello %s, %d bytes", who, n)
}

func kindOf(word, token string) string {
	message, _ := base64.StdEncoding.DecodeString(token)
	if word == "NTLM" && len(message) > 8 {
		return fmt.Sprint(message[8])
	}
	return word
}

func (l *lab) first(w http.ResponseWriter, r *http.Request, c *labConn) {
	l.firsts.Add(1)
	if n, _ := io.Copy(io.Discard, r.Body); n > 0 {
		l.mistake("the first message came with a body of %d bytes", n)
	}
	if l.second != nil && l.second(w, r) {
		return
	}
	nonce := make([]byte, 8)
	rand.Read(nonce)
	l.mu.Lock()
	c.nonce, c.user = nonce, ""
	l.mu.Unlock()
	message := message2{nonce: nonce, info: targetInfo(), flags: usualFlags}.bytes()
	if l.message != nil {
		message = l.message(nonce)
	}
	w.Header().Set("WWW-Authenticate", "NTLM "+base64.StdEncoding.EncodeToString(message))
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, "go on\n")
}

func (l *lab) third(_ *http.Request, c *labConn, message []byte) {
	m, err := parse3(message)
	if err != nil {
		l.mistake("the third message: %v", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = m
	password, known := l.passwords[m.user]
	if c.nonce == nil || !known || !m.verify(password, c.nonce) || l.bindings != nil && !hmac.Equal(l.bindings, m.pairs[10]) {
		l.refusals++
		return
	}
	c.nonce, c.user = nil, m.user
	l.handshake.Add(1)
}

func (l *lab) refuse(w http.ResponseWriter) {
	if l.challenge != nil {
		l.challenge(w)
	} else {
		w.Header().Set("WWW-Authenticate", "NTLM")
	}
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, "no\n")
}

func (l *lab) mistake(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mistakes = append(l.mistakes, fmt.Sprintf(format, args...))
}

// take returns the requests since the last call.
func (l *lab) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.requests
	l.requests = nil
	return list
}

// forgetConns has every connection unauthenticated.
func (l *lab) forgetConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.user = ""
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// peers returns the server's certificate as a client sees it.
func (l *lab) peers() []*x509.Certificate { return []*x509.Certificate{l.Certificate()} }

func explain(t testing.TB, resp *http.Response) *authretry.Rejection {
	t.Helper()
	var r *authretry.Rejection
	require.ErrorAs(t, authretry.Explain(resp), &r)
	return r
}
