package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// maxConfig is how many bytes a configuration file may have.
const maxConfig = 1 << 20

// configName is what Docker calls its configuration file, in whichever folder it is.
const configName = "config.json"

// DockerConfig returns a func that finds credentials where docker login and podman login leave them: in the configuration file
// at path, or with the credential helpers that it names (credHelpers, credsStore). If path is "", it is the first that there is
// of $DOCKER_CONFIG/config.json or else ~/.docker/config.json, and of Podman's $REGISTRY_AUTH_FILE,
// $XDG_RUNTIME_DIR/containers/auth.json and ~/.config/containers/auth.json; and without any of them, there are no credentials.
// A file at path must be there: without it, requests fail. The file is read for each token request, so that a login takes effect at once.
//
// Of the entries in auths, the one counts that fits best: a repository's or its namespace's ("registry.example.com/team"), as
// Podman has them, else the registry's. Docker Hub's is "https://index.docker.io/v1/". The same func serves Scheme and
// authretry.Basic; an identity token is for Scheme only, and Basic never gets one. Entries with a registrytoken alone do not count.
//
// A helper is the program docker-credential-NAME. It is run without a shell, must be in a folder of $PATH, has 20 seconds, and is
// asked for one registry at a time. It says itself that it knows no credentials; if it is not there, hangs, or prints what is no
// answer, the request fails.
//
// An error wrapping authretry.ErrUnsupportedChallenge means that there are no credentials. It says where they were looked for, and
// which command logs in. But for the name of a helper, no error has anything in it of what the file or a helper says.
func DockerConfig(path string) authretry.CredentialsFunc {
	return func(ctx context.Context, r authretry.CredentialsRequest) (username, password string, err error) {
		config, err := readConfig(path)
		if err != nil {
			return "", "", err
		}
		c, err := config.credentials(ctx, r)
		switch {
		case err != nil:
			return "", "", err
		case !c.isSet():
			return "", "", config.notFound(r.Origin)
		case c.username == identityToken && !isBearer(r.Challenge):
			return "", "", errIdentityToken
		}
		return c.username, c.password, nil
	}
}

func isBearer(c *authretry.Challenge) bool { return c != nil && guarded.Lower(c.Scheme) == "bearer" }

var (
	errIdentityToken = fmt.Errorf("%w: registry: the configuration has an identity token for this registry, which is not sent as a password", authretry.ErrUnsupportedChallenge)
	errBadConfig     = errors.New("registry: the configuration file is not the JSON of Docker's configuration, or too large")
	errBadAuth       = errors.New("registry: the configuration file has an entry in auths that is not the base64 of a user name and a password")
)

// A dockerConfig is what counts of a configuration file.
type dockerConfig struct {
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`

	path   string   // of the file; "" if there is none
	tried  []string // where there is none
	helper string   // the program that was asked and knows no credentials; "" if none was
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// readConfig reads the file at path, or the first of the usual ones; a missing one of those is an empty one.
func readConfig(path string) (*dockerConfig, error) {
	paths := []string{path}
	if path == "" {
		paths = usualConfigs()
	}
	for _, p := range paths {
		data, err := readFile(p)
		if errors.Is(err, fs.ErrNotExist) && path == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("registry: the configuration file cannot be read: %w", err)
		}
		config, err := decodeConfig(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, p)
		}
		config.path = p
		return config, nil
	}
	return &dockerConfig{tried: paths}, nil
}

// dockersConfig returns where Docker itself has its configuration; "" if the user has no home.
func dockersConfig() string {
	if folder := os.Getenv("DOCKER_CONFIG"); folder != "" {
		return filepath.Join(folder, configName)
	}
	if home, _ := os.UserHomeDir(); home != "" {
		return filepath.Join(home, ".docker", configName)
	}
	return ""
}

// usualConfigs returns where Docker and Podman have their configuration.
func usualConfigs() (paths []string) {
	home, _ := os.UserHomeDir()
	add := func(folder string, rest ...string) {
		if folder != "" {
			paths = append(paths, filepath.Join(append([]string{folder}, rest...)...))
		}
	}
	add(dockersConfig())
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	add(home, ".config", "containers", "auth.json")
	return paths
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = errBadConfig
	}
	return data, err
}

func decodeConfig(data []byte) (*dockerConfig, error) {
	var c dockerConfig
	if json.Unmarshal(data, &c) != nil {
		return nil, errBadConfig // which does not quote it
	}
	return &c, nil
}

// credentials returns what there is for a registry; none if there is nothing.
func (d *dockerConfig) credentials(ctx context.Context, r authretry.CredentialsRequest) (credentials, error) {
	names := namesOf(r)
	if helper, key := lookUp(d.CredHelpers, names); helper != "" {
		return d.ask(ctx, helper, key)
	}
	entry, key := lookUp(d.Auths, names)
	if c, err := entry.credentials(); err == errBadAuth {
		return c, fmt.Errorf("%w: %s", err, d.path)
	} else if err != nil || c.isSet() {
		return c, err
	}
	if d.CredsStore == "" {
		return credentials{}, nil
	}
	if key == "" {
		key = names[len(names)-1]
	}
	return d.ask(ctx, d.CredsStore, key)
}

// ask asks a helper for the credentials of a registry, and notes that if it knows none.
func (d *dockerConfig) ask(ctx context.Context, helper, registry string) (credentials, error) {
	c, err := askHelper(ctx, helper, registry)
	if err == nil && !c.isSet() {
		d.helper = helperProgram(helper)
	}
	return c, err
}

// lookUp returns the value of the first name that is among the keys, or that one of them means, and that key. There may be none.
func lookUp[V any](values map[string]V, names []string) (value V, key string) {
	for _, name := range names {
		if value, ok := values[name]; ok {
			return value, name
		}
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if normalized(key) == name {
				return values[key], key
			}
		}
	}
	return value, ""
}

// normalized returns a key without what older versions of Docker have written besides the host: a scheme, and the path of an API.
func normalized(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	for _, path := range []string{"/v1/", "/v1", "/v2/", "/v2", "/"} {
		if rest, ok := strings.CutSuffix(key, path); ok {
			return rest
		}
	}
	return key
}

// hubKey is under which name Docker keeps the credentials of its Hub.
const hubKey = "https://index.docker.io/v1/"

// namesOf returns under which names there may be credentials for a registry, the one that says most first, the registry's own
// last.
func namesOf(r authretry.CredentialsRequest) (names []string) {
	_, host, _ := strings.Cut(r.Origin, "://")
	hosts := []string{host}
	switch {
	case isHub(host):
		hosts = []string{"docker.io", "index.docker.io", "registry-1.docker.io", hubKey}
	case strings.HasPrefix(r.Origin, "https://") && !hasPort(host):
		hosts = []string{host + ":443", host}
	case strings.HasPrefix(r.Origin, "http://") && !hasPort(host):
		hosts = []string{host + ":80", host}
	}
	repository := repositoryIn(r.Challenge)
	for repository != "" {
		for _, h := range hosts {
			names = append(names, h+"/"+repository)
		}
		repository = repository[:max(0, strings.LastIndexByte(repository, '/'))]
	}
	return append(names, hosts...)
}

func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

// repositoryIn returns the repository for which a challenge is: the first that is to be written to, else the first.
func repositoryIn(c *authretry.Challenge) string {
	if !isBearer(c) {
		return ""
	}
	set, err := parseScope(c.Params.Get("scope"))
	if err != nil {
		return ""
	}
	first := ""
	for _, one := range set.list() {
		resource := one[:max(0, strings.LastIndexByte(one, ':'))]
		name, ok := strings.CutPrefix(resource, "repository:")
		switch {
		case !ok:
		case strings.Contains(one[len(resource):], "push"):
			return name
		case first == "":
			first = name
		}
	}
	return first
}

// credentials returns what an entry has.
func (e authEntry) credentials() (credentials, error) {
	switch {
	case e.IdentityToken != "":
		return credentials{identityToken, e.IdentityToken}, nil
	case e.Auth == "":
		return credentials{e.Username, e.Password}, nil
	}
	text, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		text, err = base64.RawStdEncoding.DecodeString(e.Auth)
	}
	username, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return credentials{}, errBadAuth
	}
	return credentials{username, strings.TrimRight(password, "\x00")}, nil
}
