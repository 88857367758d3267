package negotiate

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/iana/patype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

const (
	maxRealms     = 5       // on the way to the one that has the service
	maxIterations = 1 << 20 // of PBKDF2, which the KDC names
	minIterations = 4096    // before a proof is sent; it is what RFC 3962 §4 has by default, and less than RFC 8009 §4
)

// ticketGranting returns the ticket for the ticket-granting service of the user's realm. It logs in if need be, one at a time.
func (c *Client) ticketGranting(ctx context.Context, l *login) (*ticket, error) {
	if l.path != "" {
		if !l.tgt.isUsable(time.Now()) {
			return nil, loginRequired("the ticket in %s has ended at %v: run kinit", l.path, l.tgt.end.Format(time.RFC3339))
		}
		return l.tgt, nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("logging in takes too long: %w", ctx.Err())
	}
	now := time.Now()
	c.mu.Lock()
	tgt, failed, until := l.tgt, l.failed, l.isUntil
	c.mu.Unlock()
	switch {
	case tgt.isUsable(now) && (!tgt.isOld(now) || now.Before(until)):
		return tgt, nil
	case now.Before(until):
		return nil, failed
	}
	latest, err := c.logIn(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		l.failed, l.isUntil = err, time.Now().Add(heldBack(err))
		if tgt.isUsable(now) {
			return tgt, nil
		}
		return nil, err
	}
	l.tgt, l.failed, l.isUntil = latest, nil, time.Time{}
	return latest, nil
}

// logIn gets a ticket-granting ticket with the password or the keytab (RFC 4120 §3.1).
func (c *Client) logIn(ctx context.Context) (*ticket, error) {
	name, realm, _ := strings.Cut(c.Principal, "@")
	realm = cmp.Or(realm, c.config.LibDefaults.DefaultRealm)
	if realm == "" {
		return nil, errors.New("Client.Principal names no realm, and krb5.conf has no default_realm")
	}
	who := credentials.NewFromPrincipalName(types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, name), realm)
	request, err := messages.NewASReqForTGT(realm, c.config, who.CName())
	if err != nil {
		return nil, fmt.Errorf("no request to the KDC can be made: %w", err)
	}
	if len(request.ReqBody.EType) == 0 {
		return nil, errors.New("krb5.conf leaves no encryption type for the login")
	}
	if c.Keytab == "" {
		who.WithPassword(c.Password)
	} else if err := c.useKeytab(who, &request); err != nil {
		return nil, err
	}
	answer, err := c.sendLogin(ctx, &request)
	if said, ok := errors.AsType[*saidError](err); ok && said.code == errorcode.KDC_ERR_PREAUTH_REQUIRED {
		if err = c.proveKey(who, &request, said.data); err == nil {
			answer, err = c.sendLogin(ctx, &request)
		}
	}
	if err != nil {
		return nil, err
	}
	var rep messages.ASRep
	if err := rep.Unmarshal(answer); err != nil {
		return nil, errLying
	}
	if err := checkIterations(rep.PAData, 1); err != nil {
		return nil, err
	}
	if ok, err := rep.Verify(c.config, who, request); !ok {
		return nil, c.unverified(rep.DecryptedEncPart, err)
	}
	t := newTicket(rep.KDCRepFields)
	t.realm = realm
	return t, nil
}

// useKeytab has the keys of a keytab used, and asks for encryption types that it has keys of.
func (c *Client) useKeytab(who *credentials.Credentials, request *messages.ASReq) error {
	keys, err := keytab.Load(c.Keytab)
	if err != nil {
		return fmt.Errorf("the keytab %s cannot be read: %w", c.Keytab, err)
	}
	has := func(etype int32) bool {
		for _, e := range keys.Entries {
			if e.Key.KeyType == etype && e.Principal.Realm == who.Realm() && strings.Join(e.Principal.Components, "/") == who.CName().PrincipalNameString() {
				return true
			}
		}
		return false
	}
	request.ReqBody.EType = slices.DeleteFunc(slices.Clone(request.ReqBody.EType), func(etype int32) bool { return !has(etype) })
	if len(request.ReqBody.EType) == 0 {
		return fmt.Errorf("the keytab %s has no key for %s@%s of an encryption type that is used", c.Keytab, who.CName().PrincipalNameString(), who.Realm())
	}
	who.WithKeytab(keys)
	return nil
}

func (c *Client) sendLogin(ctx context.Context, request *messages.ASReq) ([]byte, error) {
	message, err := request.Marshal()
	if err != nil {
		return nil, fmt.Errorf("no request to the KDC can be made: %w", err)
	}
	return c.send(ctx, request.ReqBody.Realm, message)
}

// proveKey adds to a request the proof that we have the user's key: an encrypted timestamp (RFC 4120 §5.2.7.2).
func (c *Client) proveKey(who *credentials.Credentials, request *messages.ASReq, data []byte) error {
	var wanted types.PADataSequence
	if err := wanted.Unmarshal(data); err != nil {
		return errLying
	}
	least := cmp.Or(c.leastIterations, minIterations)
	if who.HasKeytab() {
		least = 1 // a key that nobody can guess, and no password
	}
	if err := checkIterations(wanted, least); err != nil {
		return err
	}
	var key types.EncryptionKey
	kvno := 0
	etype, hints, err := keyType(wanted, request.ReqBody.EType)
	if err != nil {
		return err
	}
	if who.HasKeytab() {
		key, kvno, err = who.Keytab().GetEncryptionKey(who.CName(), who.Realm(), 0, etype)
	} else {
		key, _, err = crypto.GetKeyFromPassword(who.Password(), who.CName(), who.Realm(), etype, hints)
	}
	if err != nil {
		return fmt.Errorf("the KDC wants a key that cannot be had: %w", err)
	}
	stamp, err := types.GetPAEncTSEncAsnMarshalled()
	if err != nil {
		return fmt.Errorf("no proof for the KDC can be made: %w", err)
	}
	sealed, err := crypto.GetEncryptedData(stamp, key, keyusage.AS_REQ_PA_ENC_TIMESTAMP, kvno)
	if err != nil {
		return fmt.Errorf("no proof for the KDC can be made: %w", err)
	}
	proof, err := sealed.Marshal()
	if err != nil {
		return fmt.Errorf("no proof for the KDC can be made: %w", err)
	}
	request.PAData = types.PADataSequence{{PADataType: patype.PA_ENC_TIMESTAMP, PADataValue: proof}}
	return nil
}

// keyType returns the encryption type that the KDC wants the proof in, and what it says of how the password becomes a key of that
// type. It must be one that we have asked for: the KDC's word is not protected here. So nothing else that it says counts: gokrb5 would
// take another type from there, and make the key in the way of that one, such as by RC4's MD4.
func keyType(wanted types.PADataSequence, asked []int32) (etype int32, hints types.PADataSequence, err error) {
	for _, pa := range wanted {
		if pa.PADataType == patype.PA_ETYPE_INFO2 {
			info, err := pa.GetETypeInfo2()
			if err != nil || len(info) == 0 {
				return 0, nil, errLying
			}
			if !slices.Contains(asked, info[0].EType) {
				return 0, nil, fmt.Errorf("the KDC wants a proof of the encryption type %d, which is too weak or not known here", info[0].EType)
			}
			return info[0].EType, types.PADataSequence{pa}, nil
		}
	}
	return asked[0], nil, nil
}

// checkIterations fails if a key would take very long to be derived from a password (RFC 3962 §4), or so little that whoever sees a
// proof by it could try passwords as quickly.
func checkIterations(data types.PADataSequence, least uint32) error {
	for _, pa := range data {
		if pa.PADataType != patype.PA_ETYPE_INFO2 {
			continue
		}
		info, err := pa.GetETypeInfo2()
		if err != nil {
			return errLying
		}
		for _, entry := range info {
			if len(entry.S2KParams) != 4 {
				continue
			}
			switch n := binary.BigEndian.Uint32(entry.S2KParams); {
			case n == 0 || n > maxIterations: // 0 are 2^32
				return errors.New("the KDC wants the password hashed more often than this machine is willing to")
			case n < least:
				return fmt.Errorf("the KDC, or who answers for it, wants the password hashed %d times only, so that it could be guessed from a proof; it must be %d times", n, least)
			}
		}
	}
	return nil
}

var errLying = errors.New("the KDC's answer cannot be read, or is not the KDC's")

// serviceTicket gets a ticket for a service (RFC 4120 §3.3), from the realm that has it.
func (c *Client) serviceTicket(ctx context.Context, tgt *ticket, spn string) (*ticket, error) {
	service := types.NewPrincipalName(nametype.KRB_NT_SRV_HST, spn)
	realm := c.config.ResolveRealm(strings.ToLower(service.NameString[len(service.NameString)-1]))
	for range maxRealms {
		wanted := service
		if realm != "" && realm != tgt.realm {
			wanted = types.PrincipalName{NameType: nametype.KRB_NT_SRV_INST, NameString: []string{"krbtgt", realm}}
		}
		t, err := c.exchangeTicket(ctx, tgt, wanted)
		if err != nil || t.realm == "" {
			return t, err
		}
		if wanted.Equal(service) {
			realm = t.realm // the KDC knows better than krb5.conf
		}
		tgt = t
	}
	return nil, &saidError{text: fmt.Sprintf("it has not been found within %d realms", maxRealms)}
}

// exchangeTicket asks the realm of a ticket-granting ticket for a ticket for a service, which may be another realm's
// ticket-granting service.
func (c *Client) exchangeTicket(ctx context.Context, tgt *ticket, wanted types.PrincipalName) (*ticket, error) {
	request, err := messages.NewTGSReq(tgt.cname, tgt.realm, c.config, tgt.Ticket, tgt.key, wanted, false)
	if err != nil {
		return nil, fmt.Errorf("no request to the KDC can be made: %w", err)
	}
	message, err := request.Marshal()
	if err != nil {
		return nil, fmt.Errorf("no request to the KDC can be made: %w", err)
	}
	answer, err := c.send(ctx, tgt.realm, message)
	if err != nil {
		return nil, err
	}
	var rep messages.TGSRep
	if rep.Unmarshal(answer) != nil || rep.DecryptEncPart(tgt.key) != nil {
		return nil, errLying
	}
	if ok, err := rep.Verify(c.config, request); !ok {
		return nil, c.unverified(rep.DecryptedEncPart, err)
	}
	t := newTicket(rep.KDCRepFields)
	name := rep.DecryptedEncPart.SName.NameString
	switch {
	case !slices.Equal(name, t.SName.NameString):
		return nil, errLying
	case len(name) == 2 && name[0] == "krbtgt":
		t.realm = name[1]
	case !slices.Equal(name, wanted.NameString):
		return nil, errors.New("the KDC has issued one for another service")
	}
	return t, nil
}

// unverified returns the error for an answer that is no good.
func (c *Client) unverified(part messages.EncKDCRepPart, err error) error {
	began := part.StartTime
	if began.IsZero() {
		began = part.AuthTime
	}
	if ahead := time.Since(began); !began.IsZero() && ahead.Abs() > c.config.LibDefaults.Clockskew {
		return &saidError{code: errorcode.KRB_AP_ERR_SKEW, text: clockText("the KDC", ahead)}
	}
	if part.EndTime.IsZero() {
		return fmt.Errorf("the password or the keytab is wrong, or the answer is not the KDC's: %w", err)
	}
	return fmt.Errorf("%w: %w", errLying, err)
}

// newTicket returns the ticket in a KDC's answer.
func newTicket(rep messages.KDCRepFields) *ticket {
	part := rep.DecryptedEncPart
	return &ticket{Ticket: rep.Ticket, key: part.Key, cname: rep.CName, crealm: rep.CRealm, got: time.Now(), end: part.EndTime}
}
