// Package quicktls has a certificate for the servers of tests. A handshake with it takes a fraction of the time that it takes with
// httptest's, which is of RSA.
package quicktls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"time"
)

// Config returns a configuration for httptest.Server.TLS, each time another one with the same certificate, which the server's
// Client trusts.
func Config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{Certificate()}, CurvePreferences: Curves}
}

// Curves are what Config has for CurvePreferences. A client that has them, too, makes no other key in vain.
var Curves = []tls.CurveID{tls.X25519}

// Certificate returns the certificate, which is made once, with its key. It is for the names that httptest's is for.
var Certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), // also in a bubble of testing/synctest
		NotAfter:     time.Unix(1<<32, 0),
		DNSNames:     []string{"example.com", "*.example.com"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})
