package ntlm_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
)

// A program with one user name.
func ExampleScheme() {
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{&ntlm.Scheme{Username: os.Getenv("API_USER"), Password: os.Getenv("API_PASSWORD")}}, // EXAMPLE\mufasa
		Origins: []string{"https://intranet.example.com"},
	}}
	resp, err := client.Get("https://intranet.example.com/reports")
	if err != nil {
		log.Print(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

type userKey struct{}

// A service that acts on behalf of many users. None of them gets a connection of another.
func ExampleScheme_accounts() {
	passwords := map[string]string{"mufasa": os.Getenv("PASSWORD")}
	client := &http.Client{Transport: &authretry.Transport{
		Account: func(req *http.Request) string {
			user, _ := req.Context().Value(userKey{}).(string)
			return user
		},
		Schemes: []authretry.Scheme{&ntlm.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
			password, ok := passwords[r.Account]
			if !ok {
				return "", "", fmt.Errorf("%w: there is no such user", authretry.ErrUnsupportedChallenge)
			}
			return `EXAMPLE\` + r.Account, password, nil
		}}},
		Origins: []string{"https://intranet.example.com"},
	}}
	req, err := http.NewRequestWithContext(context.WithValue(context.Background(), userKey{}, "mufasa"), "GET", "https://intranet.example.com/mail", nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		log.Print(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

// A proxy that asks for NTLM, and an API behind it that asks for a token.
func ExampleProxyDialer() {
	dialer := &ntlm.ProxyDialer{
		Proxy:          &url.URL{Scheme: "http", Host: "proxy.example.com:3128"},
		Username:       os.Getenv("API_USER"), // EXAMPLE\mufasa
		Password:       os.Getenv("API_PASSWORD"),
		AllowPlaintext: true, // most such proxies have no TLS
	}
	client := &http.Client{Transport: &authretry.Transport{
		Base:    &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true},
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: &authretry.TokenSource{Fetch: authretry.FromFile("token")}}},
		Origins: []string{"https://api.example.com"},
	}}
	resp, err := client.Get("https://api.example.com/")
	if err != nil {
		log.Print(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}
