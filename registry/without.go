package registry

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/authretry/authretry"
)

// errNilCredentials stands for a Scheme without Credentials.
var errNilCredentials = fmt.Errorf("%w: Scheme.Credentials is nil", authretry.ErrUnsupportedChallenge)

// without returns the error for what is not granted without credentials. None, of whyNone, says why there are none.
func without(none error) error {
	return &authretry.Rejection{Reason: authretry.ReasonNoCredentials, Err: none}
}

// whyNone returns what there is to be said if a registry allows nothing without credentials, and what Scheme.Credentials said is
// that it has none. Many registries say the same of what does not exist.
func whyNone(origin string, said error) error {
	_, host, _ := strings.Cut(origin, "://")
	why := "Scheme.Credentials returns none for it"
	if e, ok := errors.AsType[*notFoundError](said); ok {
		why = e.where()
	} else if said == errNilCredentials {
		why = "Scheme.Credentials is nil; set it, for instance to registry.DockerConfig(\"\")"
	} else if said != authretry.ErrUnsupportedChallenge {
		why += ": " + strings.TrimPrefix(said.Error(), authretry.ErrUnsupportedChallenge.Error()+": ")
	}
	return fmt.Errorf("registry: without credentials this is not allowed, or does not exist; none were found for %.200q: %s", host, why)
}

// notFound returns the error for a registry without credentials in a configuration.
func (d *dockerConfig) notFound(origin string) error {
	_, host, _ := strings.Cut(origin, "://")
	return &notFoundError{host: host, path: d.path, tried: d.tried, helper: d.helper}
}

// A notFoundError says where credentials for a registry were looked for, and which command puts them there.
type notFoundError struct {
	host   string
	path   string   // of the configuration file; "" if there is none
	tried  []string // where there is none
	helper string   // the program that was asked besides; "" if none was
}

func (e *notFoundError) Error() string {
	return fmt.Sprintf("registry: no credentials were found for %.200q: %s", e.host, e.where())
}

// where says where they are not, and what to do.
func (e *notFoundError) where() string {
	where := e.path + " has none"
	if e.path == "" {
		where = "none of these files exists: " + strings.Join(e.tried, ", ")
	}
	if e.helper != "" {
		where = e.helper + ", which " + e.path + " names, knows none"
	}
	return fmt.Sprintf(`%s; run "%s"`, where, e.login())
}

// login returns the command that logs in, and puts the credentials where they were looked for.
func (e *notFoundError) login() string {
	path := e.path
	if absolute, err := filepath.Abs(path); path != "" && err == nil {
		path = absolute
	}
	command, hub := "docker login", "" // as docker calls its Hub
	switch {
	case path == "", path == dockersConfig(): // where docker puts them by itself
	case filepath.Base(path) == configName:
		command = "docker --config " + quoted(filepath.Dir(path)) + " login"
	default: // as Podman's auth.json
		command, hub = "podman login --authfile "+quoted(path), " docker.io"
	}
	if isHub(e.host) {
		return command + hub
	}
	return command + " " + quoted(e.host)
}

// quoted returns a word of a command as a shell takes it.
func quoted(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:,+@%="
	switch windows := runtime.GOOS == "windows"; {
	case windows && strings.Trim(word, plain+`\`) == "":
		return word
	case windows: // where no path has such a mark
		return `"` + word + `"`
	case strings.Trim(word, plain) == "" && word != "":
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Unwrap says that no credentials are an answer, and no failure.
func (e *notFoundError) Unwrap() error { return authretry.ErrUnsupportedChallenge }

// isHub reports whether a host is Docker Hub's.
func isHub(host string) bool {
	return host == "registry-1.docker.io" || host == "index.docker.io" || host == "docker.io"
}
