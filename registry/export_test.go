package registry

import (
	"net"
	"net/http"
	"net/url"

	"github.com/authretry/authretry/internal/guarded"
)

// SetResolver has token servers looked up by a resolver of the test's.
func (s *Scheme) SetResolver(r *net.Resolver) { s.resolver = r }

// SetProxy has token servers asked by a proxy of the test's.
func (s *Scheme) SetProxy(f func(*http.Request) (*url.URL, error)) { s.proxy = f }

// Remembered returns of how many places, tokens and registries something is remembered.
func (s *Scheme) Remembered() (places, grants, trusted int) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	return len(s.memory.places.values), len(s.memory.grants.values), len(s.memory.trusted.values)
}

var (
	ParseScope = func(text string) ([]string, error) {
		set, err := parseScope(text)
		return set.list(), err
	}
	PlaceOf    = placeOf
	OriginOf   = guarded.Origin
	ReadAnswer = readAnswer
)
