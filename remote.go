package authretry

import (
	"context"
	"net"
	"net/http"
	"net/url"

	"github.com/authretry/authretry/internal/dialed"
)

// watch has a request say where it goes.
func (x *exchange) watch(req *http.Request) *dialed.Watch {
	w, ctx := dialed.New(req.Context(), hostPort(req.URL))
	*req = *req.WithContext(ctx)
	return w
}

// A refusedAt is where a refusal came from.
type refusedAt struct {
	url    string // of the request, without user info, query and fragment
	remote string // the address of the server, as far as that is known
}

// noteRefusal notes where the response came from that a Scheme or Session is about to be shown.
func (x *exchange) noteRefusal() {
	if x.side != originSide {
		return
	}
	at := x.at()
	u := url.URL{Scheme: at.Scheme, Host: at.Host, Path: at.Path, RawPath: at.RawPath}
	x.refusal.Store(&refusedAt{u.String(), x.aside.value().remote})
}

// refusedAt returns where the refusal came from that is being answered, of an origin's. A Scheme may ask in a goroutine of its own,
// which may go on longer than its Answer, and even than the exchange.
func (x *exchange) refusedAt() refusedAt {
	if at := x.refusal.Load(); at != nil {
		return *at
	}
	return refusedAt{}
}

// refusalIn returns where the refusal came from that is being answered, if a context says so.
func refusalIn(ctx context.Context) refusedAt {
	at, _ := ctx.Value(refusalKey{}).(refusedAt)
	return at
}

// hostPort returns where a URL leads, as http.Transport writes it. A host outside ASCII is one of which nothing will be known.
func hostPort(u *url.URL) string {
	o := originOf(u)
	return net.JoinHostPort(o.host, o.port)
}
