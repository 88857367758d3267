package guides_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// From auth.Client of oras-go to registry.Scheme. Its Credential becomes Credentials, or registry.DockerConfig("") for what docker login has saved. Its Cache is
// not needed: a Transport remembers its tokens.
func Example_fromORAS() {
	srv := authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: "open sesame"})
	defer srv.Close()
	srv.Handle("/v2/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"name":"lab/app","tags":["v1"]}`) }))
	host := strings.TrimPrefix(srv.URL, "http://")

	before := &auth.Client{
		Credential: auth.StaticCredential(host, auth.Credential{Username: "Aladdin", Password: "open sesame"}),
		Cache:      auth.NewCache(),
	}
	after := &http.Client{Transport: authretry.New(&registry.Scheme{
		Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return "Aladdin", "open sesame", nil
		},
	})}
	for _, client := range []remote.Client{before, after} {
		srv.Reset()
		repository, err := remote.NewRepository(host + "/lab/app")
		check(err)
		repository.Client, repository.PlainHTTP = client, true
		for range 3 {
			check(repository.Tags(context.Background(), "", func(tags []string) error {
				fmt.Print(tags, " ")
				return nil
			}))
		}
		fmt.Println("token requests:", srv.Counts().TokenRequests)
	}
	// Output:
	// [v1] [v1] [v1] token requests: 1
	// [v1] [v1] [v1] token requests: 1
}
