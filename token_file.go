package authretry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// maxSecretFile is how large a file with a token or an assertion may be.
const maxSecretFile = 64 << 10

// rereadFile is after how long a token from a file is looked for again, as the clients of Kubernetes do.
const rereadFile = time.Minute

// FromFile returns a FetchFunc for an access token in a file, which something else replaces before it expires, such as a
// Kubernetes service account token that is projected into a volume. The file has the token and nothing else but white space
// around it, 64 KiB at most. It is read at least once a minute while it is in use, and when a server has refused the token.
func FromFile(path string) FetchFunc {
	return func(context.Context, TokenRequest) (*oauth2.Token, error) {
		data, err := readSecretFile(path)
		if err != nil {
			return nil, fmt.Errorf("authretry: %w", err)
		}
		t := &oauth2.Token{AccessToken: string(bytes.TrimSpace(data)), Expiry: time.Now().Add(rereadFile)}
		if end := expiryOfJWT(t.AccessToken); !end.IsZero() && end.Before(t.Expiry) {
			t.Expiry = end
		}
		return t, nil
	}
}

// expiryOfJWT returns what the token says of its end, unverified, if it is a JWT that says so.
func expiryOfJWT(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &claims) != nil || claims.Expiry <= 0 || claims.Expiry > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expiry), 0)
}

// readSecretFile reads a small regular file, which may be reached by symbolic links, as those of Kubernetes are.
func readSecretFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened, which takes forever if it is a pipe
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSecretFile:
		return nil, fmt.Errorf("%s has more than %d bytes, so it is no token", path, maxSecretFile)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	}
	return data, nil
}
