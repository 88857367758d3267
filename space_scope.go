package authretry

import (
	"net/url"
	"strings"
)

// match returns how well the space fits u: the length of the path scope that u is in, 0 if only the Session says
// that it covers u, or -1.
func (sp *protectionSpace) match(u *url.URL) int {
	c, knows := sp.latest.Session.(Covers)
	if knows && !c.Covers(u) {
		return -1
	}
	if !hasDotSegment(u.Path) {
		path := pathOf(u)
		if len(path) > maxScope { // nor is any scope
			path = path[:strings.LastIndexByte(path[:maxScope], '/')+1]
		}
		for scope := path; scope != ""; scope = parentScope(scope) {
			if _, ok := sp.scopes[scope]; ok {
				return len(scope)
			}
		}
	}
	if knows {
		return 0
	}
	return -1
}

// addScopes adds the path and what lies below its last slash (RFC 7617 §2.2) to the space. It returns by how many bytes
// the space has grown.
func (sp *protectionSpace) addScopes(path string) (grown int) {
	for _, scope := range []string{path, parentScope(path + "x")} {
		if scope == "" || len(scope) > maxScope {
			continue
		}
		if _, ok := sp.scopes[scope]; ok {
			continue
		}
		if len(sp.scopes) >= maxScopes {
			for s := range sp.scopes {
				delete(sp.scopes, s)
				grown -= sizeOfScope + len(s)
				break
			}
		}
		scope = strings.Clone(scope)
		sp.scopes[scope] = struct{}{}
		grown += sizeOfScope + len(scope)
	}
	return grown
}

// pathOf returns the path of u as a server sees it.
func pathOf(u *url.URL) string {
	if u.Path == "" {
		return "/"
	}
	return u.Path
}

// parentScope returns the path, which must not be empty, up to the last slash but a trailing one, or "" if there is none.
func parentScope(path string) string {
	return path[:strings.LastIndexByte(path[:len(path)-1], '/')+1]
}

// hasDotSegment reports whether the server may take the path to lie elsewhere than it seems to.
func hasDotSegment(path string) bool {
	return strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") || strings.Contains(path, "/./")
}
