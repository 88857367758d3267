package schemetest

import (
	"testing"

	"github.com/authretry/authretry/internal/showtest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	o := Options{Secrets: []string{showtest.Secret}}
	showtest.Types(t, ".", map[string]any{"Options": []any{o, &o}})
}
