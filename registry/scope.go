package registry

import (
	"errors"
	"slices"
	"strings"
)

// Bounds of what a challenge can have asked for.
const (
	maxResources  = 64      // of one scope set
	maxScopeBytes = 8 << 10 // of one, as a text
	maxUnited     = 8       // resources for which one token is asked because of challenges of the past
)

// A scopeSet is what a token is to be good for: the actions by resource, such as "repository:library/alpine". It is not modified
// once it is made.
type scopeSet map[string][]string

var (
	errTooManyScopes = errors.New("registry: the challenge asks for too many scopes")
	errBadScope      = errors.New("registry: the challenge asks for a scope with a character that scopes cannot have (RFC 6749 §3.3)")
)

// parseScope reads the scope of a challenge: resource scopes with spaces between them, of which each is
// type:name:action,action. The name may have colons, as in that of a host with a port.
func parseScope(text string) (scopeSet, error) {
	if len(text) > maxScopeBytes {
		return nil, errTooManyScopes
	}
	set := scopeSet{}
	for one := range strings.FieldsSeq(text) {
		if strings.ContainsFunc(one, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return nil, errBadScope
		}
		resource, actions := one, ""
		if i := strings.LastIndexByte(one, ':'); i > strings.IndexByte(one, ':') {
			resource, actions = one[:i], one[i+1:]
		}
		set.add(resource, strings.Split(actions, ","))
		if len(set) > maxResources {
			return nil, errTooManyScopes
		}
	}
	return set, nil
}

// add adds actions of a resource to a set that is being made.
func (s scopeSet) add(resource string, actions []string) {
	all := slices.Concat(s[resource], actions)
	slices.Sort(all)
	s[resource] = slices.DeleteFunc(slices.Compact(all), func(action string) bool { return action == "" })
}

// and returns what either has.
func (s scopeSet) and(other scopeSet) scopeSet {
	all := make(scopeSet, len(s)+len(other))
	for _, set := range []scopeSet{s, other} {
		for resource, actions := range set {
			all.add(resource, actions)
		}
	}
	return all
}

// only returns what s has of one resource.
func (s scopeSet) only(resource string) scopeSet {
	if actions, ok := s[resource]; ok {
		return scopeSet{resource: actions}
	}
	return nil
}

// includes reports whether s has all that other has.
func (s scopeSet) includes(other scopeSet) bool {
	for resource, actions := range other {
		has, ok := s[resource]
		if !ok || slices.ContainsFunc(actions, func(action string) bool { return !slices.Contains(has, action) }) {
			return false
		}
	}
	return true
}

// list returns the resource scopes, sorted, as a token server is asked for them. Equal sets give equal lists.
func (s scopeSet) list() []string {
	list := make([]string, 0, len(s))
	for resource, actions := range s {
		if len(actions) > 0 {
			resource += ":" + strings.Join(actions, ",")
		}
		list = append(list, resource)
	}
	slices.Sort(list)
	return list
}

func (s scopeSet) String() string { return strings.Join(s.list(), " ") }

// unite returns what a token is asked for: what the challenge names, and what else is known to be needed at the same place, so
// that the next request there needs no other token. Where that is a lot, as after many mounts, it is the own resource's only.
func unite(challenge, known scopeSet, own string) scopeSet {
	if all := known.and(challenge); len(all) <= maxUnited && len(all.String()) <= maxScopeBytes {
		return all
	}
	if all := known.only(own).and(challenge); len(all) <= maxResources && len(all.String()) <= maxScopeBytes {
		return all
	}
	return challenge
}

const maxPath = 1 << 10 // bytes of a path of which something is remembered

// placeOf returns to what belongs what is learnt at a path: "repository:NAME" below that of a repository (/v2/NAME/manifests/...
// and so on, see the OCI distribution specification), else the path itself. It is "" if nothing is remembered of such a path.
func placeOf(path string) string {
	if len(path) > maxPath {
		return ""
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return path
	}
	parts := strings.Split(rest, "/")
	n := len(parts)
	isUpload := func(i int) bool { return i > 0 && parts[i] == "blobs" && i+1 < n && parts[i+1] == "uploads" }
	switch {
	case n >= 4 && isUpload(n-3): // NAME/blobs/uploads/ID, and NAME/blobs/uploads/
		n -= 3
	case n >= 3 && slices.Contains([]string{"manifests", "blobs", "tags", "referrers"}, parts[n-2]):
		n -= 2
	default:
		return path
	}
	return "repository:" + strings.Join(parts[:n], "/")
}
