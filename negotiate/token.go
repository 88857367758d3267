package negotiate

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/jcmturner/gokrb5/v8/messages"
)

// The names of mechanisms (RFC 4178 §2, RFC 4121 §4.1).
func oidSPNEGO() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 2} }
func oidKrb5() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{1, 2, 840, 113554, 1, 2, 2} }

// What the inner token of Kerberos is (RFC 4121 §4.1).
const (
	idRequest = "\x01\x00" // AP-REQ
	idReply   = "\x02\x00" // AP-REP
	idError   = "\x03\x00" // KRB-ERROR
)

// A negTokenInit begins a context (RFC 4178 §4.2.1). It names one mechanism, so a server has no other to choose.
type negTokenInit struct {
	Mechanisms []asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
	Token      []byte                  `asn1:"explicit,tag:2"`
}

// A negTokenResp is a server's reply (RFC 4178 §4.2.2).
type negTokenResp struct {
	State     asn1.Enumerated       `asn1:"explicit,optional,default:-1,tag:0"`
	Mechanism asn1.ObjectIdentifier `asn1:"explicit,optional,tag:1"`
	Token     []byte                `asn1:"explicit,optional,tag:2"`
	MIC       []byte                `asn1:"explicit,optional,tag:3"`
}

// What negTokenResp.State may be.
const (
	acceptCompleted = 0
	rejected        = 2
)

// framed puts a token into the frame of a mechanism's first one (RFC 2743 §3.1).
func framed(mechanism asn1.ObjectIdentifier, id string, token []byte) ([]byte, error) {
	oid, err := asn1.Marshal(mechanism)
	if err != nil {
		return nil, err
	}
	content := append(append(oid, id...), token...)
	return asn1.Marshal(asn1.RawValue{Class: asn1.ClassApplication, Tag: 0, IsCompound: true, Bytes: content})
}

// unframed undoes framed.
func unframed(b []byte) (mechanism asn1.ObjectIdentifier, content []byte, err error) {
	var frame asn1.RawValue
	if rest, err := asn1.Unmarshal(b, &frame); err != nil || len(rest) > 0 || frame.Class != asn1.ClassApplication || frame.Tag != 0 {
		return nil, nil, errNoToken
	}
	if content, err = asn1.Unmarshal(frame.Bytes, &mechanism); err != nil {
		return nil, nil, errNoToken
	}
	return mechanism, content, nil
}

// initToken returns the token that has an AP-REQ.
func initToken(request []byte) ([]byte, error) {
	inner, err := framed(oidKrb5(), idRequest, request)
	if err != nil {
		return nil, err
	}
	return offered(inner)
}

// offered returns a token that offers Kerberos alone, with Kerberos' own first token.
func offered(inner []byte) ([]byte, error) {
	seq, err := asn1.Marshal(negTokenInit{[]asn1.ObjectIdentifier{oidKrb5()}, inner})
	if err != nil {
		return nil, err
	}
	choice, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: seq})
	if err != nil {
		return nil, err
	}
	return framed(oidSPNEGO(), "", choice)
}

// requestIn returns the AP-REQ in what initToken has returned.
func requestIn(token []byte) ([]byte, error) {
	_, content, err := unframed(token)
	if err != nil {
		return nil, err
	}
	var choice asn1.RawValue
	var init negTokenInit
	if _, err := asn1.Unmarshal(content, &choice); err != nil {
		return nil, errNoToken
	}
	if _, err := asn1.Unmarshal(choice.Bytes, &init); err != nil {
		return nil, errNoToken
	}
	return kerberosIn(init.Token, idRequest)
}

// kerberosIn returns the message in an inner token of Kerberos, of which it must be.
func kerberosIn(token []byte, id string) ([]byte, error) {
	mechanism, content, err := unframed(token)
	if err != nil || !mechanism.Equal(oidKrb5()) || len(content) < len(id) || string(content[:len(id)]) != id {
		return nil, errNoToken
	}
	return content[len(id):], nil
}

// A reply is what a server says in a token.
type reply struct {
	state asn1.Enumerated // -1: it says none
	token []byte          // of Kerberos, with its frame; nil: none
	other string          // what it is instead
}

// acceptance reads a server's token, which must say that it has accepted ours.
func acceptance(b []byte) (reply, error) {
	r := readReply(b)
	switch {
	case r.other != "":
		return r, fmt.Errorf("it is %s", r.other)
	case r.state != acceptCompleted:
		return r, errors.New("the server has not accepted the token")
	}
	return r, nil
}

// readReply reads a server's token. It may come without the frame of RFC 4178, as the token of Kerberos itself.
func readReply(b []byte) reply {
	if len(b) >= 8 && string(b[:8]) == "NTLMSSP\x00" {
		return reply{state: -1, other: "NTLM"}
	}
	var choice asn1.RawValue
	var resp negTokenResp
	rest, err := asn1.Unmarshal(b, &choice)
	switch {
	case err != nil || len(rest) > 0:
		return reply{state: -1, other: "what is no token"}
	case choice.Class == asn1.ClassApplication && choice.Tag == 0:
		return reply{state: acceptCompleted, token: b}
	case choice.Class != asn1.ClassContextSpecific || choice.Tag != 1:
		return reply{state: -1, other: "what is no token"}
	}
	if rest, err := asn1.Unmarshal(choice.Bytes, &resp); err != nil || len(rest) > 0 {
		return reply{state: -1, other: "what is no token"}
	}
	microsofts := asn1.ObjectIdentifier{1, 2, 840, 48018, 1, 2, 2} // what some call Kerberos
	if m := resp.Mechanism; len(m) > 0 && !m.Equal(oidKrb5()) && !m.Equal(microsofts) {
		other := "another mechanism than Kerberos"
		if m.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 2, 10}) {
			other = "NTLM"
		}
		return reply{state: resp.State, other: other}
	}
	return reply{state: resp.State, token: resp.Token}
}

var errNoToken = errors.New("it is no token of Kerberos")

// readRefusal reads the token in the challenge that came in answer to a token. It returns what there is to say of it, and whether
// another ticket might help.
func readRefusal(token68 string) (reason string, again bool) {
	b := decode(token68)
	if b == nil {
		return "", true // as most say it, whatever the reason
	}
	r := readReply(b)
	if r.other != "" {
		return ": the server goes on with " + r.other + ", which is not answered", false
	}
	message, err := kerberosIn(r.token, idError)
	switch {
	case err != nil && r.state == acceptCompleted:
		return ": the server has accepted the token, and does not let its user in", false
	case err != nil && r.state == rejected:
		return ": the server rejects the token; it may have no key for the service, or another one", true
	case err != nil:
		return ": the server wants more than one token, and with Kerberos there is one", false
	}
	said, err := readError(message)
	if err != nil {
		return "", true
	}
	if isAboutClocks(said) {
		return ": " + skewText("the server", said), false
	}
	return ": the server says " + errorText(said), isAboutTicket(said.ErrorCode)
}

// readError reads a KRB-ERROR.
func readError(b []byte) (said messages.KRBError, err error) {
	err = contained(func() error { return said.Unmarshal(b) })
	return said, err
}

var errUnreadable = errors.New("it cannot be read")

// contained calls f, which reads what may be anything. A panic is an error.
func contained(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errUnreadable
		}
	}()
	return f()
}
