package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Errors that those of OpenKey wrap.
var (
	// ErrUnsafe means that others can read the key, or could have put it there.
	ErrUnsafe = errors.New("dpop: the key file is not private")

	// ErrDamaged means that the file does not hold a key. It is left as it is: another key would need a new login.
	ErrDamaged = errors.New("dpop: the file does not hold a private key in PKCS#8, as PEM")
)

// maxKeyFile is how large a key file may be; one for RSA with 16,384 bits has less.
const maxKeyFile = 64 << 10

const pemType = "PRIVATE KEY"

// OpenKey returns the Key in a file. If there is no such file, it makes one with a new key for ES256; however many processes
// come at once, they get the same. The folder is made, with mode 0700, if there is none; it must be one in which nobody else
// can write.
//
// The file has the private key in PKCS#8, as PEM, and mode 0600. One that others may read, that belongs to another user, or that
// is a symbolic link or no regular file is refused with an error that wraps [ErrUnsafe]. On Windows the folder's access rights
// are what protects the file. For a key that something else keeps or rotates, take [NewKey].
//
// Whoever loses the file loses the login of a public client: its refresh token is bound to the key (RFC 9449 §5).
func OpenKey(path string) (*Key, error) {
	data, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(path); err != nil {
			return nil, err
		}
		data, err = readKeyFile(path)
	}
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s; bring the key back, or remove the file and log in again", err, path)
	}
	k, err := NewKey(signer)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return k, nil
}

func readKeyFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	if err := checkKeyFile(path, info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0) // which neither follows a link nor waits for a pipe
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // another file may be there by now
		return nil, fmt.Errorf("dpop: %w", err)
	}
	if err := checkKeyFile(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("dpop: %w", err)
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrDamaged, path, maxKeyFile)
	}
	return data, nil
}

// checkKeyFile returns an error unless the file may hold a key.
func checkKeyFile(path string, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symbolic link; use the file it leads to", ErrUnsafe, path)
	case !mode.IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %#o; if nobody else can have read it, chmod 600 it, otherwise remove it and log in again", ErrUnsafe, path, mode.Perm())
	case isOfAnother(info):
		return fmt.Errorf("%w: %s belongs to another user, who may know the key", ErrUnsafe, path)
	}
	return nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, ErrDamaged
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, ErrDamaged // whose text might quote what is in it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, ErrDamaged
	}
	return signer, nil
}

// makeKeyFile makes a file with a new key, unless somebody else has by then. The file appears under its name as a whole.
func makeKeyFile(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	temp, err := os.CreateTemp(folder, filepath.Base(path)+".tmp-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = io.Copy(temp, bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})))
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	if err := os.Link(temp.Name(), path); err != nil { // which, unlike a rename, replaces nothing
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return fmt.Errorf("dpop: the new key cannot be put in its place (a file system without hard links?); make one with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256: %w", err)
	}
	return syncFolder(folder)
}

// syncFolder makes a new name outlast a crash of the machine.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" {
		return nil // where folders cannot be synced
	}
	f, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("dpop: %w", err)
	}
	return nil
}
