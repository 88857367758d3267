package negotiate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/jcmturner/gokrb5/v8/credentials"
)

const maxCache = 4 << 20 // bytes of a credential cache

// readCache returns the login in a credential cache, which is the known one if the cache has not been changed, or has the
// same ticket-granting ticket. A cache that is being written is the one that it was, unless it says already that it is another user's.
func readCache(name string, known *login) (*login, error) {
	path, err := cachePath(name)
	if err != nil {
		return nil, err
	}
	file, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, loginRequired("negotiate: there is no credential cache %s: run kinit; if klist shows another one, run kinit -c FILE:/some/path, and set KRB5CCNAME or Client.Cache to that", path)
	}
	if err != nil {
		return nil, fmt.Errorf("negotiate: the credential cache cannot be read: %w", err)
	}
	if known != nil && known.file != nil && os.SameFile(known.file, file) && known.file.ModTime().Equal(file.ModTime()) && known.file.Size() == file.Size() {
		return known, nil
	}
	if !file.Mode().IsRegular() { // of which a pipe would hold us up
		return nil, notACache(path)
	}
	l, err := loadCache(path)
	switch {
	case err != nil && known != nil && (l == nil || l.owner == known.owner):
		return known, nil
	case err != nil:
		return nil, err
	case known != nil && bytes.Equal(known.tgt.EncPart.Cipher, l.tgt.EncPart.Cipher):
		known.file = file
		return known, nil
	}
	l.path, l.file = path, file
	return l, nil
}

// cachePath returns the path of a cache, by its name or by the environment.
func cachePath(name string) (string, error) {
	from := "Client.Cache"
	if name == "" {
		name, from = os.Getenv("KRB5CCNAME"), "KRB5CCNAME"
	}
	name = cmp.Or(name, "/tmp/krb5cc_"+strconv.Itoa(os.Getuid())) // where kinit of MIT and Heimdal puts it by default, whatever TMPDIR says
	kind, path, typed := strings.Cut(name, ":")
	switch {
	case !typed || strings.ContainsAny(kind, `/\`) || len(kind) == 1: // of a drive
		return name, nil
	case strings.EqualFold(kind, "FILE"):
		return path, nil
	}
	return "", fmt.Errorf("negotiate: the credential cache %.200q, as %s names it, is of the type %.20s, and only those of the type FILE can be read: "+
		"log in by kinit -c FILE:/some/path, and set %s to that; or use a keytab", name, from, kind, from)
}

// loadCache reads a cache. With an error, it returns a login if the cache says whose it is.
func loadCache(path string) (l *login, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("negotiate: the credential cache cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCache+1))
	if err != nil {
		return nil, fmt.Errorf("negotiate: the credential cache cannot be read: %w", err)
	}
	b = slices.Clip(b) // or else what is beyond its end is read for zeros
	var cache credentials.CCache
	if len(b) > maxCache || contained(func() error { return cache.Unmarshal(b) }) != nil {
		return nil, notACache(path)
	}
	realm := cache.DefaultPrincipal.Realm
	l = newLogin(nil)
	l.path, l.owner, l.stored = path, cache.DefaultPrincipal.PrincipalName.PrincipalNameString()+"@"+realm, make(map[string]*ticket)
	for _, entry := range cache.GetEntries() {
		t := &ticket{key: entry.Key, cname: cache.DefaultPrincipal.PrincipalName, crealm: realm, got: time.Now(), end: entry.EndTime}
		isOwn := entry.Client.Realm == realm && entry.Client.PrincipalName.Equal(cache.DefaultPrincipal.PrincipalName)
		if !isOwn || entry.IsSKey || contained(func() error { return t.Ticket.Unmarshal(entry.Ticket) }) != nil {
			continue
		}
		name := entry.Server.PrincipalName.PrincipalNameString()
		if name == "krbtgt/"+realm && entry.Server.Realm == realm {
			t.realm = realm
			if l.tgt == nil || t.end.After(l.tgt.end) {
				l.tgt = t
			}
		} else if known := l.stored[name]; known == nil || t.end.After(known.end) {
			l.stored[name] = t
		}
	}
	if l.tgt == nil {
		return l, loginRequired("negotiate: the credential cache %s has no ticket-granting ticket: run kinit", path)
	}
	return l, nil
}

func notACache(path string) error {
	return fmt.Errorf("negotiate: the credential cache %s cannot be read: it is damaged, or no such file", path)
}

// A loginError says that somebody has to log in.
type loginError string

// loginRequired is fmt.Errorf for that.
func loginRequired(format string, args ...any) error { return loginError(fmt.Sprintf(format, args...)) }

func (e loginError) Error() string { return string(e) }

// Unwrap returns authretry.ErrLoginRequired.
func (e loginError) Unwrap() error { return authretry.ErrLoginRequired }
