package negotiate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/negotiate"
)

// As whoever has run kinit, or on Windows has logged on.
func Example() {
	client := &http.Client{Transport: authretry.New(&negotiate.Scheme{})}
	resp, err := client.Get("https://intranet.example.com/")
	if err != nil {
		fmt.Println(err) // for instance, that there is no credential cache, and to run kinit
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		fmt.Println(authretry.Explain(resp)) // such as: the clock of this machine is 10m0s ahead of that of the server
	}
}

// A service has a keytab. Each request is sent once, and the server proves who it is.
func ExampleClient() {
	client := &http.Client{Transport: &authretry.Transport{
		Origins: []string{"https://api.example.com"},
		Schemes: []authretry.Scheme{&negotiate.Scheme{
			Kerberos: &negotiate.Client{Principal: "backup@EXAMPLE.COM", Keytab: "/etc/backup.keytab"},
			Ahead:    true,
			Mutual:   true,
		}},
	}}
	_ = client
}

// Only hosts of one domain are in the realm, and one of them is known there by another name.
func ExampleScheme_sPN() {
	scheme := &negotiate.Scheme{SPN: func(origin *url.URL) string {
		switch host := strings.ToLower(origin.Hostname()); {
		case host == "www.example.com":
			return "HTTP/web-7.example.com"
		case strings.HasSuffix(host, ".example.com"):
			return "HTTP/" + host
		}
		return "" // no Kerberos
	}}
	_ = scheme
}

// A gateway calls an API on behalf of its users, of each of which it has a credential cache.
func ExampleScheme_accounts() {
	type userKey struct{}
	client := &http.Client{Transport: &authretry.Transport{
		Origins: []string{"https://api.example.com"},
		Account: func(req *http.Request) string {
			user, _ := req.Context().Value(userKey{}).(string)
			return user // "" is nobody: no credentials
		},
		Schemes: []authretry.Scheme{&negotiate.Scheme{
			Accounts: func(_ context.Context, account string) (negotiate.Kerberos, error) {
				path, ok := map[string]string{"alice": "/run/gateway/1.cc"}[account]
				if !ok {
					return nil, errors.New("not logged in")
				}
				return &negotiate.Client{Cache: path}, nil
			},
		}},
	}}
	_ = client
}

// A proxy that wants Kerberos.
func ExampleScheme_proxy() {
	client := &http.Client{Transport: authretry.NewProxyTransport(nil, &negotiate.Scheme{})} // the proxy that the environment names
	_ = client
}

// A gssapi stands for a binding to another Kerberos.
type gssapi struct {
	newToken func(spn string) ([]byte, error)
}

func (g *gssapi) Token(ctx context.Context, spn string) ([]byte, error) { return g.newToken(spn) }
func (g *gssapi) Verify(spn string, token, reply []byte) error {
	return errors.New("replies cannot be verified")
}
func (g *gssapi) Format(f fmt.State, _ rune) { fmt.Fprint(f, "gssapi") }

// Another Kerberos is put in by two methods.
func ExampleKerberos() {
	var other negotiate.Kerberos = &gssapi{newToken: func(string) ([]byte, error) { return nil, errors.New("no ticket") }}
	client := &http.Client{Transport: authretry.New(&negotiate.Scheme{Kerberos: other})}
	_ = client
}
