package login

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/authretry/authretry/internal/guarded"
)

const maxURL = 8 << 10 // bytes of a URL that a server names

// checkOpenable returns a URL that a browser may be sent to: one that is https, or http to this machine, has no character that
// means something to a terminal, and no host that a browser may take for an address while we cannot tell for which. No shell sees it.
func checkOpenable(what, named string) (*url.URL, error) {
	refuse := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("login: the %s that the authorization server names is not opened: %s", what, why)
	}
	u, err := url.Parse(named)
	switch {
	case named == "" || len(named) > maxURL:
		return refuse("it is empty or too long")
	case strings.ContainsFunc(named, func(r rune) bool { return !strings.ContainsRune(openable, r) }):
		return refuse("it has a character that is not usual in a URL")
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return refuse("it is no URL with a host")
	case u.Scheme != "https" && !(u.Scheme == "http" && guarded.IsLoopbackName(u.Hostname())):
		return refuse("it is neither https, nor http to this machine")
	case u.User != nil || strings.Contains(named, "#"):
		return refuse("it has a user name or a fragment in it")
	}
	if _, ok := guarded.ReadHost(u.Hostname()); !ok {
		return refuse("a browser may take its host for an address that is written in another way")
	}
	return u, nil
}

// openable are the characters that a URL to be opened may have.
const openable = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!*+,=&%"
