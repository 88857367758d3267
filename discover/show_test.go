package discover

import (
	"errors"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/showtest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	client := Client{Issuer: "https://a", ID: "me", Auth: authretry.SecretBasic(secret)}
	c := &Config{Clients: []Client{client}}
	keep(&c.registered, "https://a", &registered{id: "me", secret: secret, method: "client_secret_basic"})
	err := failed("auth.example.com", ErrNoMetadata, errors.New(secret))
	showtest.Types(t, ".", map[string]any{
		"Config": c,
		"Client": []any{client, &client},
		"Error":  []any{err, errors.Join(err)},
	}, "Resource", "Server")
}
