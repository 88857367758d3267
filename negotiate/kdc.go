package negotiate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/messages"
)

const (
	maxAnswer = 256 << 10 // bytes of a KDC's answer
	maxKDCs   = 8         // that are asked for one ticket
	kdcLimit  = 5 * time.Second
	maxSkew   = 5 * time.Minute // of clocks, as Kerberos has it
)

// loadConfig reads krb5.conf.
func loadConfig(path string) (*config.Config, error) {
	if list := filepath.SplitList(path); len(list) > 1 { // KRB5_CONFIG may be one, the first of which counts most
		path = list[0]
	}
	var cfg *config.Config
	var err error
	if e := contained(func() error { cfg, err = config.Load(path); return nil }); e != nil {
		err = e
	}
	if _, ok := errors.AsType[config.UnsupportedDirective](err); ok && cfg != nil {
		err = nil // the rest is good
	}
	if err != nil {
		return nil, fmt.Errorf("negotiate: the Kerberos configuration %s cannot be used: %w", path, err)
	}
	if slices.Equal(cfg.LibDefaults.DefaultTktEnctypes, config.New().LibDefaults.DefaultTktEnctypes) {
		// Whoever is between us and the KDC chooses among these what to attack the password by.
		cfg.LibDefaults.DefaultTktEnctypeIDs = []int32{20, 19, 18, 17} // AES (RFC 8009, RFC 3962)
	}
	return cfg, nil
}

// kdcs returns the addresses of the KDCs of a realm.
func (c *Client) kdcs(ctx context.Context, realm string) (addresses []string, err error) {
	for _, r := range c.config.Realms {
		if r.Realm == realm {
			for _, address := range r.KDC {
				addresses = append(addresses, withPort(address))
			}
		}
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	if len(addresses) == 0 && c.config.LibDefaults.DNSLookupKDC {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "kerberos", "tcp", realm)
		if err != nil {
			return nil, fmt.Errorf("no KDC of the realm %s is found by DNS: %w", realm, err)
		}
		for _, r := range records {
			addresses = append(addresses, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("krb5.conf has no kdc for the realm %q, and its dns_lookup_kdc is not true", realm)
	}
	return addresses[:min(len(addresses), maxKDCs)], nil
}

// withPort returns the address of a KDC with its port, which is 88 unless it says otherwise.
func withPort(address string) string {
	address = strings.TrimSuffix(address, "*")
	if _, port, err := net.SplitHostPort(address); err == nil && port != "" {
		return address
	}
	return net.JoinHostPort(strings.Trim(strings.TrimSuffix(address, ":88"), "[]"), "88")
}

// send sends a message to one KDC of a realm after the other, until one answers. An answer that is a KRB-ERROR is an error.
func (c *Client) send(ctx context.Context, realm string, message []byte) ([]byte, error) {
	addresses, err := c.kdcs(ctx, realm)
	if err != nil {
		return nil, err
	}
	if i := slices.Index(addresses, c.goodKDC(realm)); i > 0 {
		addresses[0], addresses[i] = addresses[i], addresses[0]
	}
	var failures []error
	for _, address := range addresses {
		answer, err := c.ask(ctx, address, message)
		if err == nil {
			c.noteGoodKDC(realm, address)
			if said, err := readError(answer); err == nil {
				return nil, saidBy(said)
			}
			return answer, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("no KDC of the realm %s answers: %w", realm, errors.Join(failures...))
}

// goodKDC returns the address of the KDC of a realm that has answered last; "" if none has.
func (c *Client) goodKDC(realm string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.good[realm]
}

func (c *Client) noteGoodKDC(realm, address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.good[realm]; !ok && len(c.good) >= maxServices { // which KDCs may name
		clear(c.good)
	}
	if c.good == nil {
		c.good = make(map[string]string)
	}
	c.good[realm] = address
}

// ask sends a message to a KDC by TCP (RFC 4120 §7.2.2), and returns the answer.
func (c *Client) ask(ctx context.Context, address string, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, kdcLimit)
	defer cancel()
	dial := c.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)); err != nil {
		return nil, err
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(conn, size); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	n := binary.BigEndian.Uint32(size)
	if n > maxAnswer {
		return nil, fmt.Errorf("%s: the answer would have %d bytes, and may have %d", address, n, maxAnswer)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return answer, nil
}

// A saidError is what a KDC has said, so that it is of no use to ask again at once.
type saidError struct {
	code int32
	text string
	data []byte // how the KDC wants a login proven
}

func (e *saidError) Error() string { return e.text }

// Unwrap says of a service that is not known that a request can be sent without a token for it; and of a user that only a new login,
// with something else, can help.
func (e *saidError) Unwrap() error {
	switch e.code {
	case errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN:
		return authretry.ErrChallengeRequired
	case errorcode.KDC_ERR_PREAUTH_FAILED, errorcode.KDC_ERR_C_PRINCIPAL_UNKNOWN, errorcode.KDC_ERR_CLIENT_REVOKED, errorcode.KDC_ERR_KEY_EXPIRED,
		errorcode.KDC_ERR_NAME_EXP:
		return authretry.ErrLoginRequired
	}
	return nil
}

// saidBy returns the error for what a KDC has said.
func saidBy(said messages.KRBError) *saidError {
	text := "the KDC says " + errorText(said)
	if isAboutClocks(said) {
		text = skewText("the KDC", said)
	}
	switch said.ErrorCode {
	case errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN:
		text = "the KDC knows no service with the name of the host: it is not in the realm, or known there by another name (see Scheme.SPN); " + text
	case errorcode.KDC_ERR_PREAUTH_FAILED:
		text = "the password or the keytab is wrong; " + text
	}
	return &saidError{said.ErrorCode, text, said.EData}
}

// isTicketRefused reports whether it was a ticket that a KDC did not like.
func isTicketRefused(err error) bool {
	said, ok := errors.AsType[*saidError](err)
	return ok && isAboutTicket(said.code)
}

// isAboutTicket reports whether an error that a KDC or a service has named is about the ticket, so that another may do.
func isAboutTicket(code int32) bool {
	switch code {
	case errorcode.KRB_AP_ERR_MODIFIED, errorcode.KRB_AP_ERR_BADKEYVER, errorcode.KRB_AP_ERR_NOKEY, errorcode.KRB_AP_ERR_TKT_EXPIRED,
		errorcode.KRB_AP_ERR_BAD_INTEGRITY, errorcode.KRB_AP_ERR_NOT_US:
		return true
	}
	return false
}

// errorText returns a KRB-ERROR as text.
func errorText(said messages.KRBError) string {
	text := errorcode.Lookup(said.ErrorCode)
	if said.EText != "" {
		text = fmt.Sprintf("%s: %.200q", text, said.EText)
	}
	return text
}

// isAboutClocks reports whether what a KDC or a service does not like is that clocks differ.
func isAboutClocks(said messages.KRBError) bool {
	switch said.ErrorCode {
	case errorcode.KRB_AP_ERR_SKEW:
		return true
	case errorcode.KRB_AP_ERR_TKT_NYV, errorcode.KRB_AP_ERR_TKT_EXPIRED, errorcode.KDC_ERR_NEVER_VALID:
		return time.Since(said.STime).Abs() > maxSkew
	}
	return false
}

// skewText says that the clocks differ too much.
func skewText(who string, said messages.KRBError) string {
	theirs := said.STime.Add(time.Duration(said.Susec) * time.Microsecond)
	return clockText(who, time.Since(theirs))
}

// clockText says by how much the own clock is ahead of another.
func clockText(who string, ahead time.Duration) string {
	where := "ahead of"
	if ahead < 0 {
		where, ahead = "behind", -ahead
	}
	return fmt.Sprintf("the clock of this machine is %v %s that of %s, and Kerberos allows 5 minutes: set the clocks right", ahead.Round(time.Second), where, who)
}
