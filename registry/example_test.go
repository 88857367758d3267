package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
)

func ExampleScheme() {
	guard := &authtest.Registry{Username: "Aladdin", Password: "open sesame"}
	srv := authtest.NewServer(guard)
	defer srv.Close()

	client := &http.Client{Transport: authretry.New(&registry.Scheme{
		Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
			if r.Origin == srv.URL { // the registry that these are for
				return "Aladdin", "open sesame", nil
			}
			return "", "", authretry.ErrUnsupportedChallenge
		},
	})}
	for range 2 {
		resp, err := client.Get(srv.URL + "/v2/library/alpine/manifests/latest")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	for _, r := range srv.Requests() {
		fmt.Println(r)
	}
	for _, r := range srv.TokenRequests() {
		fmt.Println("a token for", r.Scope)
	}
	// Output:
	// 200 OK
	// 200 OK
	// GET /v2/library/alpine/manifests/latest 401 challenged
	// GET /v2/library/alpine/manifests/latest 200 accepted
	// GET /v2/library/alpine/manifests/latest 200 accepted
	// a token for repository:library/alpine:pull
}

// A registry with public and private repositories, as a test needs it for what becomes of those who have not logged in.
func ExampleScheme_anonymous() {
	srv := authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: "open sesame", Public: []string{"library/"}})
	defer srv.Close()

	client := &http.Client{Transport: authretry.New(&registry.Scheme{})} // no Credentials
	for _, repository := range []string{"library/alpine", "lab/app"} {
		resp, err := client.Get(srv.URL + "/v2/" + repository + "/manifests/latest")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(repository, resp.Status)
		if why, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp)); ok {
			fmt.Println(why.Reason == authretry.ReasonNoCredentials)
		}
	}
	// Output:
	// library/alpine 200 OK
	// lab/app 401 Unauthorized
	// true
}

// The credentials that docker login and podman login leave serve registries of both kinds.
func ExampleDockerConfig() {
	credentials := registry.DockerConfig("")
	client := &http.Client{Transport: &authretry.Transport{
		Origins: []string{"https://registry-1.docker.io", "https://registry.example.com"},
		Schemes: []authretry.Scheme{
			&registry.Scheme{
				Credentials: credentials,
				Realms: map[string][]string{ // optional: which token server the registry may name
					"https://registry.example.com": {"https://auth.example.com"},
				},
			},
			&authretry.Basic{Credentials: credentials},
		},
	}}
	_ = client
}
