// This program has go-containerregistry and oras-go push and pull through an authretry.Transport, which gets the tokens for both. The
// registry is go-containerregistry's own, in this process, behind a guard of package authtest.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"github.com/google/go-containerregistry/pkg/name"
	memoryregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	orasremote "oras.land/oras-go/v2/registry/remote"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	srv := authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: "open sesame"})
	defer srv.Close()
	srv.Handle("/v2/", memoryregistry.New(memoryregistry.Logger(log.New(io.Discard, "", 0))))
	host := strings.TrimPrefix(srv.URL, "http://")

	// One Transport for both. Yours has registry.DockerConfig("") for its Credentials.
	transport := authretry.New(&registry.Scheme{Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
		return "Aladdin", "open sesame", nil
	}})

	// go-containerregistry looks for tokens of its own if its ping of /v2/ is refused. By this Transport it is not. So there is
	// nothing to switch off but WithAuth and WithAuthFromKeychain: leave them out.
	options := []remote.Option{remote.WithTransport(transport), remote.WithContext(ctx)}
	ref, err := name.NewTag(host+"/lab/app:v1", name.Insecure)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte("a layer"), types.OCIUncompressedLayer))
	if err != nil {
		return err
	}
	if err := remote.Write(ref, image, options...); err != nil {
		return fmt.Errorf("go-containerregistry pushes: %w", err)
	}
	fmt.Fprintf(out, "go-containerregistry has pushed lab/app:v1: %d token requests\n", srv.Counts().TokenRequests)

	// oras-go has its authentication in auth.Client, which is what it uses if Client is nil. An http.Client has none.
	repository, err := orasremote.NewRepository(host + "/lab/app")
	if err != nil {
		return err
	}
	repository.Client = &http.Client{Transport: transport}
	repository.PlainHTTP = true
	local := memory.New()
	pulled, err := oras.Copy(ctx, repository, "v1", local, "v1", oras.CopyOptions{})
	if err != nil {
		return fmt.Errorf("oras-go pulls: %w", err)
	}
	fmt.Fprintf(out, "oras-go has pulled it: %s\n", pulled.Digest)
	if _, err := oras.Copy(ctx, local, "v1", repository, "v2", oras.CopyOptions{}); err != nil {
		return fmt.Errorf("oras-go pushes: %w", err)
	}
	fmt.Fprintf(out, "oras-go has pushed it as v2: %d token requests\n", srv.Counts().TokenRequests)

	again, err := remote.Image(ref.Context().Tag("v2"), options...)
	if err != nil {
		return fmt.Errorf("go-containerregistry pulls: %w", err)
	}
	digest, err := again.Digest()
	if err != nil {
		return err
	}
	tags, err := remote.List(ref.Context(), options...)
	if err != nil {
		return fmt.Errorf("go-containerregistry lists: %w", err)
	}
	fmt.Fprintf(out, "go-containerregistry has pulled v2: %s\ntags: %s\n", digest, tags)
	fmt.Fprintf(out, "all in all %d token requests\n", srv.Counts().TokenRequests)
	return nil
}
