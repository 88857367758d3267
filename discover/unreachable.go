package discover

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/authretry/authretry/internal/guarded"
)

// timeout returns how long a request takes at most, the answer included.
func (c *Config) timeout() time.Duration {
	if c.HTTPClient != nil && c.HTTPClient.Timeout > 0 {
		return min(c.HTTPClient.Timeout, guarded.Timeout)
	}
	return guarded.Timeout
}

// A lateError is for a server that has not answered in our own time, which is what it says. It does not wrap
// context.DeadlineExceeded, by which the caller's time would be meant.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("it has not answered in time, which is %v at most", time.Duration(e))
}

// Timeout and Temporary make it a net.Error.
func (e lateError) Timeout() bool   { return true }
func (e lateError) Temporary() bool { return true }

// unanswered returns the error for a request that got no whole answer, when ctx is the caller's context.
func (c *Config) unanswered(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return lateError(c.timeout())
	}
	return err
}

// whyUnreachable says why a server has not answered; "" if that cannot be said without a text that may be the server's own.
func whyUnreachable(cause error) string {
	if late, ok := errors.AsType[lateError](cause); ok {
		return late.Error()
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](cause); ok {
		return printable(e.Error()) + "; if it is to be trusted, see Config.TLSClientConfig"
	}
	if e, ok := errors.AsType[*net.DNSError](cause); ok {
		return printable(e.Error())
	}
	op, isOp := errors.AsType[*net.OpError](cause)
	_, isSystem := errors.AsType[*os.SyscallError](cause)
	_, isNotTLS := errors.AsType[tls.RecordHeaderError](cause)
	switch {
	case isOp && (isSystem || op.Op == "remote error"): // an alert of TLS, which is a number
		return printable(op.Error())
	case isNotTLS, errors.Is(cause, http.ErrSchemeMismatch):
		return "it does not speak TLS"
	case errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF):
		return "it has closed the connection before its answer was complete"
	case errors.Is(cause, context.DeadlineExceeded):
		return "the time for it was over"
	case errors.Is(cause, context.Canceled):
		return "the request was given up"
	}
	return ""
}

// printable cuts a text of others down to one line of printable ASCII.
func printable(s string) string {
	const limit = 160
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
