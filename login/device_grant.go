package login

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
	"golang.org/x/oauth2"
)

const (
	maxUserCode     = 64               // bytes
	maxDeviceCode   = 8 << 10          // bytes
	defaultInterval = 5 * time.Second  // between polls (RFC 8628 §3.2)
	minInterval     = time.Second      // whatever the server says
	slowDown        = 5 * time.Second  // that slow_down adds to it (§3.5)
	maxInterval     = time.Minute      // to which failures to reach the server make it grow
	maxDeviceExpiry = 30 * time.Minute // for which a code is waited for at most
)

// A DeviceCode is a login by a device under way (RFC 8628): the person types UserCode at VerificationURI, on whatever device has
// a browser. All of it can be printed on a terminal.
type DeviceCode struct {
	// UserCode is printable ASCII, at most 64 bytes.
	UserCode string

	// VerificationURI is https, or http to this machine.
	VerificationURI string

	// VerificationURIComplete is the same with the code in it, for a link or a QR code; "" if there is none. The code must be
	// shown nevertheless, so that the person sees that it is the same (§3.3.1).
	VerificationURIComplete string

	// Expiry is when the code ends.
	Expiry time.Time

	endpoint *authretry.TokenEndpoint
	code     string
	interval time.Duration
}

// Device begins a login by a device: it asks for the codes.
func (a *Authorization) Device(ctx context.Context) (*DeviceCode, error) {
	if a.DeviceURL == "" {
		return nil, errors.New("login: the authorization server has no device authorization endpoint, so that nobody can log in by another device")
	}
	e, err := a.endpoint(ctx, "")
	if err != nil {
		return nil, err
	}
	params := a.params(e)
	if err := a.addParams(params); err != nil {
		return nil, err
	}
	var said deviceAnswer
	if err := a.post(ctx, e, a.DeviceURL, params, &said); err != nil {
		return nil, err
	}
	c, err := said.code(e, time.Now())
	if err != nil {
		return nil, err
	}
	if !isOfThisMachine(a.DeviceURL) && isOfThisMachine(c.VerificationURI) {
		return nil, errors.New("login: the verification_uri that the authorization server names leads to this machine, where that server is not")
	}
	if a.CheckPage != nil {
		page, err := url.Parse(c.VerificationURI)
		if err == nil {
			err = a.CheckPage(ctx, page)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// isOfThisMachine reports whether a browser takes the host of a URL for this machine without asking a resolver.
func isOfThisMachine(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	addr, _ := guarded.ReadHost(u.Hostname())
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsUnspecified()
}

// A deviceAnswer is what a device authorization endpoint answers (RFC 8628 §3.2).
type deviceAnswer struct {
	DeviceCode              string  `json:"device_code"`
	UserCode                string  `json:"user_code"`
	VerificationURI         string  `json:"verification_uri"`
	VerificationURL         string  `json:"verification_url"` // as Google has it
	VerificationURIComplete string  `json:"verification_uri_complete"`
	ExpiresIn               seconds `json:"expires_in"`
	Interval                seconds `json:"interval"`
}

// seconds is a time, which some write as a string.
type seconds time.Duration

// UnmarshalJSON implements json.Unmarshaler. What is not a positive number counts as if it were not there.
func (s *seconds) UnmarshalJSON(b []byte) error {
	var n json.Number
	if json.Unmarshal(b, &n) != nil {
		return nil
	}
	if f, err := n.Float64(); err == nil && f > 0 && !math.IsInf(f, 0) {
		*s = seconds(min(f, 1e9) * float64(time.Second))
	}
	return nil
}

// code returns what to show and to poll with.
func (d *deviceAnswer) code(e *authretry.TokenEndpoint, now time.Time) (*DeviceCode, error) {
	c := &DeviceCode{UserCode: d.UserCode, endpoint: e, code: d.DeviceCode, interval: max(cmp.Or(time.Duration(d.Interval), defaultInterval), minInterval)}
	if d.DeviceCode == "" || len(d.DeviceCode) > maxDeviceCode {
		return nil, errors.New("login: the answer has no device code, or one that is too long (RFC 8628)")
	}
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	if d.UserCode == "" || len(d.UserCode) > maxUserCode || strings.ContainsFunc(d.UserCode, unprintable) {
		return nil, errors.New("login: the code to be typed is missing, too long, or has a character that is not shown on a terminal")
	}
	lifetime := min(cmp.Or(time.Duration(d.ExpiresIn), maxDeviceExpiry), maxDeviceExpiry)
	if c.interval > lifetime {
		return nil, fmt.Errorf("login: the authorization server wants to be asked every %s, and its code ends after %s: nobody could log in", c.interval, lifetime)
	}
	c.Expiry = now.Add(lifetime)
	uri, err := checkOpenable("verification_uri", cmp.Or(d.VerificationURI, d.VerificationURL))
	if err != nil {
		return nil, err
	}
	c.VerificationURI = uri.String()
	complete, err := checkOpenable("verification_uri_complete", d.VerificationURIComplete)
	if err == nil && complete.Scheme == uri.Scheme && complete.Host == uri.Host {
		c.VerificationURIComplete = complete.String()
	}
	return c, nil
}

// Await waits until the person has agreed, and returns the token. It asks the server as often as that wants (RFC 8628 §3.5), more
// seldom where it cannot be reached. It ends with an error that wraps [ErrDeclined] or [ErrExpired], or with ctx.
func (d *DeviceCode) Await(ctx context.Context) (*oauth2.Token, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, d.Expiry, ErrExpired)
	defer cancel()
	interval := d.interval
	for {
		if err := sleep(ctx, interval); err != nil {
			return nil, err
		}
		t, err := d.poll(ctx)
		if err == nil {
			return t, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failure, said := errors.AsType[*Error](err)
		switch {
		case said && failure.isOf("authorization_pending"):
		case said && failure.isOf("slow_down"):
			interval += slowDown
		case !said && hasNoAnswer(err), said && (failure.Status == 429 || failure.Status >= 500):
			interval = max(interval, min(2*interval, maxInterval))
		default:
			return nil, err
		}
	}
}

// poll asks for the token once.
func (d *DeviceCode) poll(ctx context.Context) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	t, err := d.endpoint.DeviceCode(d.code)(ctx, authretry.TokenRequest{})
	if err != nil {
		return nil, readable(err)
	}
	return t, nil
}

// sleep waits, for no longer than ctx lasts.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Format keeps the device code out of everything that package fmt prints.
func (d DeviceCode) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "login.DeviceCode{VerificationURI: %q}", d.VerificationURI)
}

// MarshalJSON does so for JSON.
func (d DeviceCode) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"VerificationURI": d.VerificationURI})
}
