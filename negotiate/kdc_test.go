package negotiate

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/msgtype"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/iana/patype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/stretchr/testify/require"
)

const (
	testRealm = "EXAMPLE.TEST"
	aes256    = 18
	secret    = "hunter2-correct-horse" // the password of every user
)

// A testKDC is a KDC of one realm, or of one that has another's services. Users have the secret as their password.
type testKDC struct {
	t        testing.TB
	realm    string
	ahead    time.Duration        // of its clock
	life     time.Duration        // of tickets
	heard    func(message []byte) // is told what comes
	lie      func(kind string, answer []byte) []byte
	swap     map[string]string // the services that tickets are issued for instead
	open     bool              // it wants no proof for a login
	tolerant bool              // it does not look at clocks

	logins, tickets atomic.Int32 // AS-REQ that were granted, and TGS-REQ
	asked           atomic.Int32 // all messages

	mu   sync.Mutex // guards what follows
	keys *keytab.Keytab
	kvno map[string]uint8
}

func newTestKDC(t testing.TB, services ...string) *testKDC {
	return newTestRealm(t, testRealm, services...)
}

func newTestRealm(t testing.TB, realm string, services ...string) *testKDC {
	k := &testKDC{t: t, realm: realm, life: 10 * time.Hour, keys: keytab.New(), kvno: map[string]uint8{}}
	k.add("krbtgt/"+realm, "the KDC's own")
	for _, user := range []string{"alice", "bob", "carol"} {
		k.add(user, secret)
	}
	for _, s := range services {
		k.add(s, "of "+s)
	}
	return k
}

// add gives a principal a password, or another one.
func (k *testKDC) add(principal, password string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kvno[principal]++
	key, _, err := crypto.GetKeyFromPassword(password, types.PrincipalName{}, k.realm, aes256, types.PADataSequence{k.etypeInfo(principal)})
	require.NoError(k.t, err)
	// The type of an entry has no name for others.
	k.keys.Entries = append(k.keys.Entries, keytabEntry().Entries...)
	e := &k.keys.Entries[len(k.keys.Entries)-1]
	e.Principal.Realm, e.Principal.Components, e.Key, e.Timestamp = k.realm, strings.Split(principal, "/"), key, time.Now()
	e.Principal.NumComponents, e.KVNO8, e.KVNO = int16(len(e.Principal.Components)), k.kvno[principal], uint32(k.kvno[principal])
}

// trust lets users of k have tickets for services of another realm.
func (k *testKDC) trust(other *testKDC) {
	name := "krbtgt/" + other.realm
	k.add(name, "between the two")
	other.mu.Lock()
	defer other.mu.Unlock()
	other.keys.Entries = append(other.keys.Entries, k.keys.Entries[len(k.keys.Entries)-1])
}

// keytabEntry returns a keytab with one entry.
var keytabEntry = sync.OnceValue(func() *keytab.Keytab {
	keys := keytab.New()
	if err := keys.AddEntry("x", testRealm, "x", time.Now(), 1, aes256); err != nil {
		panic(err)
	}
	return keys
})

// etypeInfo says how the key of a principal is made from the password: in no time.
func (k *testKDC) etypeInfo(principal string) types.PAData {
	return etypeInfo(k.t, aes256, k.realm+strings.ReplaceAll(principal, "/", ""), 1)
}

// rekey gives a principal a key in place of those that it had.
func (k *testKDC) rekey(principal string) {
	k.mu.Lock()
	for i := len(k.keys.Entries) - 1; i >= 0; i-- {
		if strings.Join(k.keys.Entries[i].Principal.Components, "/") == principal {
			k.keys.Entries = append(k.keys.Entries[:i], k.keys.Entries[i+1:]...)
		}
	}
	k.mu.Unlock()
	k.add(principal, "another key")
}

func (k *testKDC) key(principal string) (types.EncryptionKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, _, err := k.keys.GetEncryptionKey(types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, principal), k.realm, 0, aes256)
	return key, err == nil
}

func (k *testKDC) now() time.Time { return time.Now().Add(k.ahead).UTC() }

// client returns a Client of the realm, whose connections to the KDC are pipes. It has the password of a user.
func (k *testKDC) client(user string) *Client {
	return &Client{Principal: user + "@" + k.realm, Password: secret, Config: k.config("the.kdc.test:88"), dial: k.dial, leastIterations: 1}
}

// config returns the path of a krb5.conf.
func (k *testKDC) config(kdc string) string {
	path := filepath.Join(k.t.TempDir(), "krb5.conf")
	text := fmt.Sprintf("[libdefaults]\n default_realm = %s\n[realms]\n %s = {\n  kdc = %s\n }\n", k.realm, k.realm, kdc)
	require.NoError(k.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (k *testKDC) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go k.serve(theirs)
	return ours, nil
}

// serve answers one message.
func (k *testKDC) serve(c net.Conn) {
	defer c.Close()
	size := make([]byte, 4)
	if _, err := io.ReadFull(c, size); err != nil {
		return
	}
	message := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(c, message); err != nil {
		return
	}
	k.asked.Add(1)
	if k.heard != nil {
		k.heard(message)
	}
	kind, answer := k.answer(message)
	if k.lie != nil {
		answer = k.lie(kind, answer)
	}
	c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...))
}

func (k *testKDC) answer(message []byte) (kind string, answer []byte) {
	var as messages.ASReq
	var tgs messages.TGSReq
	if as.Unmarshal(message) == nil {
		return k.logIn(&as)
	}
	if tgs.Unmarshal(message) == nil {
		return "TGS", k.issue(&tgs)
	}
	return "error", k.refuse(errorcode.KRB_AP_ERR_MSG_TYPE, nil)
}

func (k *testKDC) refuse(code int32, data []byte) []byte {
	e := messages.NewKRBError(types.NewPrincipalName(nametype.KRB_NT_SRV_INST, "krbtgt/"+k.realm), k.realm, code, "as tests have it")
	e.STime, e.Susec, e.EData = k.now().Truncate(time.Second), 0, data
	b, err := e.Marshal()
	require.NoError(k.t, err)
	return b
}

// etypeInfo says with how many iterations a key is made from the password.
func etypeInfo(t testing.TB, etype int32, salt string, iterations uint32) types.PAData {
	info, err := asn1.Marshal([]types.ETypeInfo2Entry{{EType: etype, Salt: salt, S2KParams: binary.BigEndian.AppendUint32(nil, iterations)}})
	require.NoError(t, err)
	return types.PAData{PADataType: patype.PA_ETYPE_INFO2, PADataValue: info}
}

func (k *testKDC) logIn(req *messages.ASReq) (kind string, answer []byte) {
	user := req.ReqBody.CName.PrincipalNameString()
	key, ok := k.key(user)
	if !ok {
		return "error", k.refuse(errorcode.KDC_ERR_C_PRINCIPAL_UNKNOWN, nil)
	}
	if k.open {
		k.logins.Add(1)
		return "AS", k.grant(msgtype.KRB_AS_REP, req.ReqBody, k.realm, req.ReqBody.CName, key, keyusage.AS_REP_ENCPART)
	}
	for _, pa := range req.PAData {
		if pa.PADataType != patype.PA_ENC_TIMESTAMP {
			continue
		}
		var sealed types.EncryptedData
		require.NoError(k.t, sealed.Unmarshal(pa.PADataValue))
		plain, err := crypto.DecryptEncPart(sealed, key, keyusage.AS_REQ_PA_ENC_TIMESTAMP)
		if err != nil {
			return "error", k.refuse(errorcode.KDC_ERR_PREAUTH_FAILED, nil)
		}
		var stamp types.PAEncTSEnc
		require.NoError(k.t, stamp.Unmarshal(plain))
		if k.now().Sub(stamp.PATimestamp).Abs() > 5*time.Minute && !k.tolerant {
			return "error", k.refuse(errorcode.KRB_AP_ERR_SKEW, nil)
		}
		k.logins.Add(1)
		return "AS", k.grant(msgtype.KRB_AS_REP, req.ReqBody, k.realm, req.ReqBody.CName, key, keyusage.AS_REP_ENCPART)
	}
	wanted, err := asn1.Marshal(types.PADataSequence{k.etypeInfo(user), {PADataType: patype.PA_ENC_TIMESTAMP}})
	require.NoError(k.t, err)
	return "preauth", k.refuse(errorcode.KDC_ERR_PREAUTH_REQUIRED, wanted)
}

func (k *testKDC) issue(req *messages.TGSReq) []byte {
	var ap messages.APReq
	require.NoError(k.t, ap.Unmarshal(req.PAData[0].PADataValue))
	k.mu.Lock()
	err := ap.Ticket.DecryptEncPart(k.keys, &ap.Ticket.SName)
	k.mu.Unlock()
	if err != nil || ap.DecryptAuthenticator(ap.Ticket.DecryptedEncPart.Key) != nil {
		return k.refuse(errorcode.KRB_AP_ERR_BAD_INTEGRITY, nil)
	}
	switch {
	case k.now().Sub(ap.Authenticator.CTime).Abs() > 5*time.Minute:
		return k.refuse(errorcode.KRB_AP_ERR_SKEW, nil)
	case k.now().After(ap.Ticket.DecryptedEncPart.EndTime):
		return k.refuse(errorcode.KRB_AP_ERR_TKT_EXPIRED, nil)
	}
	if other := k.swap[req.ReqBody.SName.PrincipalNameString()]; other != "" {
		req.ReqBody.SName = types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, other)
	}
	if _, ok := k.key(req.ReqBody.SName.PrincipalNameString()); !ok {
		return k.refuse(errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN, nil)
	}
	k.tickets.Add(1)
	return k.grant(msgtype.KRB_TGS_REP, req.ReqBody, ap.Ticket.DecryptedEncPart.CRealm, ap.Ticket.DecryptedEncPart.CName, ap.Ticket.DecryptedEncPart.Key, keyusage.TGS_REP_ENCPART_SESSION_KEY)
}

// grant returns an answer with a ticket, of which the user can read what is under the key.
func (k *testKDC) grant(kind int, body messages.KDCReqBody, crealm string, user types.PrincipalName, key types.EncryptionKey, usage uint32) []byte {
	now := k.now().Truncate(time.Second)
	k.mu.Lock()
	kvno := k.kvno[body.SName.PrincipalNameString()]
	t, session, err := messages.NewTicket(user, crealm, body.SName, k.realm, types.NewKrbFlags(), k.keys, aes256, int(kvno), now, now, now.Add(k.life), time.Time{})
	k.mu.Unlock()
	require.NoError(k.t, err)
	part := messages.EncKDCRepPart{Key: session, LastReqs: []messages.LastReq{}, Nonce: body.Nonce, Flags: types.NewKrbFlags(),
		AuthTime: now, StartTime: now, EndTime: now.Add(k.life), SRealm: k.realm, SName: body.SName}
	plain, err := part.Marshal()
	require.NoError(k.t, err)
	sealed, err := crypto.GetEncryptedData(plain, key, usage, 1)
	require.NoError(k.t, err)
	fields := messages.KDCRepFields{PVNO: 5, MsgType: kind, CRealm: crealm, CName: user, Ticket: t, EncPart: sealed}
	var b []byte
	if kind == msgtype.KRB_AS_REP {
		fields.PAData = types.PADataSequence{k.etypeInfo(user.PrincipalNameString())}
		b, err = (&messages.ASRep{KDCRepFields: fields}).Marshal()
	} else {
		b, err = (&messages.TGSRep{KDCRepFields: fields}).Marshal()
	}
	require.NoError(k.t, err)
	return b
}

// listen has the KDC answer on a port of the loopback interface, and returns a krb5.conf that names it.
func (k *testKDC) listen() (config string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(k.t, err)
	k.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go k.serve(c)
		}
	}()
	return k.config(strings.Replace(l.Addr().String(), "[::]", "127.0.0.1", 1))
}
