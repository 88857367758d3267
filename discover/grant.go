package discover

import (
	"context"
	"fmt"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// fetchByGrant gets a token by Grant. What was discovered for it is remembered, until the resource refuses a token.
func (c *Config) fetchByGrant(ctx context.Context, r authretry.TokenRequest, known *authretry.Record) (*oauth2.Token, error) {
	t, err := c.targetOf(&r, known)
	if err != nil {
		return nil, err
	}
	key := t.at.url.String()
	c.mu.Lock()
	f := c.machine[key]
	c.mu.Unlock()
	if f == nil || r.Challenge != nil {
		if f, err = c.discover(ctx, &r, known); err != nil {
			return nil, err
		}
		c.mu.Lock()
		keep(&c.machine, key, f)
		keep(&c.machine, f.resource.ID, f) // by which it goes when the token is replaced
		c.mu.Unlock()
	}
	if err := c.checkProof(f.resource); err != nil {
		return nil, err
	}
	who, err := c.identify(ctx, f.server, known, "")
	if err != nil {
		return nil, err
	}
	scopes := c.scopes(&r, f)
	r.Scopes = scopes
	got, err := c.naming(ctx, f.server.Issuer, func() (*oauth2.Token, error) {
		fetch := c.Grant(c.endpoint(f.server.at, f.server.TokenURL, f.server.Issuer, f.resource.ID, who), f.server)
		if fetch == nil {
			return nil, fmt.Errorf("%w: Config.Grant has returned nil", ErrNoFlow)
		}
		return fetch(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	return c.withRecord(got, f, who, scopes), nil
}
