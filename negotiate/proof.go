package negotiate

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/chksumtype"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// newAPReq returns an AP-REQ (RFC 4120 §3.2) with an authenticator of that time.
func newAPReq(t *ticket, now time.Time) ([]byte, error) {
	a, err := types.NewAuthenticator(t.crealm, t.cname)
	if err != nil {
		return nil, err
	}
	a.CTime, a.Cusec = now.Truncate(time.Second), now.Nanosecond()/1000
	sum := make([]byte, 24) // RFC 4121 §4.1.1: without channel bindings
	binary.LittleEndian.PutUint32(sum, 16)
	binary.LittleEndian.PutUint32(sum[20:], gssapi.ContextFlagMutual|gssapi.ContextFlagReplay|gssapi.ContextFlagConf|gssapi.ContextFlagInteg)
	a.Cksum = types.Checksum{CksumType: chksumtype.GSSAPI, Checksum: sum}
	request, err := messages.NewAPReq(t.Ticket, t.key, a)
	if err != nil {
		return nil, err
	}
	types.SetFlag(&request.APOptions, flags.APOptionMutualRequired)
	return request.Marshal()
}

// verify verifies that a reply proves that its sender could read a token that was made with one of the tickets: it has the
// time of the authenticator, under the session key (RFC 4120 §3.2.5).
func verify(tickets []*ticket, token, answer []byte) error {
	message, err := requestIn(token)
	if err != nil {
		return err
	}
	var request messages.APReq
	if err := request.Unmarshal(message); err != nil {
		return errNoToken
	}
	key, err := keyOf(tickets, &request)
	if err != nil {
		return err
	}
	r, err := acceptance(answer)
	if err != nil {
		return err
	}
	if message, err = kerberosIn(r.token, idReply); err != nil {
		return err
	}
	var proof messages.APRep
	if err := proof.Unmarshal(message); err != nil {
		return errNoToken
	}
	plain, err := crypto.DecryptEncPart(proof.EncPart, key, keyusage.AP_REP_ENCPART)
	if err != nil {
		return errForeign
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(plain); err != nil {
		return errForeign
	}
	a := request.Authenticator
	sent, got := []int64{a.CTime.Unix(), int64(a.Cusec)}, []int64{part.CTime.Unix(), int64(part.Cusec)}
	if subtle.ConstantTimeCompare(bytesOf(sent), bytesOf(got)) != 1 {
		return errForeign
	}
	return nil
}

var (
	errForeign = errors.New("it is not by who has the key of the service, or belongs to another request")
	errNoKey   = errors.New("the ticket of the token is not known any more")
)

// keyOf returns the session key of the ticket in a request, whose authenticator it decrypts.
func keyOf(tickets []*ticket, request *messages.APReq) (types.EncryptionKey, error) {
	for _, t := range tickets {
		if t.isIn(request.Ticket.EncPart.Cipher) && request.DecryptAuthenticator(t.key) == nil {
			return t.key, nil
		}
	}
	return types.EncryptionKey{}, errNoKey
}

func bytesOf(list []int64) (b []byte) {
	for _, n := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}
