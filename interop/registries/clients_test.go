package registries

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/registry"
	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	orasremote "oras.land/oras-go/v2/registry/remote"
)

// host returns host and port of the registry.
func (l *lab) host() string { return strings.TrimPrefix(l.URL, "http://") }

// ggcr returns options by which go-containerregistry leaves authentication to us: without WithAuth and WithAuthFromKeychain it is
// anonymous, and since its ping of /v2/ gets 200 it does not look for a token itself.
func (l *lab) ggcr() []remote.Option {
	return []remote.Option{remote.WithTransport(l.client.Transport), remote.WithContext(l.Context())}
}

// oras returns a repository for oras-go that leaves authentication to us: its Client is no auth.Client.
func (l *lab) oras(repository string) *orasremote.Repository {
	l.Helper()
	repo, err := orasremote.NewRepository(l.host() + "/" + repository)
	require.NoError(l, err)
	repo.PlainHTTP = true
	repo.Client = l.client
	return repo
}

// tell logs and returns what counts returns.
func (l *lab) tell(what string) (sends, refusals, tokens int) {
	l.Helper()
	sends, refusals, tokens = l.counts()
	l.Logf("%s: %d sends, %d refusals, %d token requests", what, sends, refusals, tokens)
	return sends, refusals, tokens
}

func TestGoContainerRegistry(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		ref, err := name.NewTag(l.host()+"/lab/ggcr:latest", name.Insecure)
		require.NoError(l, err)
		image, err := random.Image(1<<16, 3)
		require.NoError(l, err)
		require.NoError(l, remote.Write(ref, image, l.ggcr()...))
		_, _, tokens := l.tell("push")
		require.LessOrEqual(l, tokens, 3) // for the ping, for HEAD of a blob, and for the upload

		want, err := image.Digest()
		require.NoError(l, err)
		pull := func() {
			l.Helper()
			pulled, err := remote.Image(ref, l.ggcr()...)
			require.NoError(l, err)
			got, err := pulled.Digest()
			require.NoError(l, err)
			require.Equal(l, want, got)
			require.NoError(l, validate.Image(pulled))
		}
		pull()
		_, refusals, tokens := l.tell("pull")
		require.Equal(l, []int{0, 0}, []int{refusals, tokens}, "refusals, token requests")
		l.client = l.newClient(&registry.Scheme{Credentials: user})
		pull()
		_, refusals, tokens = l.tell("pull by another program")
		require.Equal(l, []int{2, 2}, []int{refusals, tokens}, "refusals, token requests")

		tags, err := remote.List(ref.Context(), l.ggcr()...)
		require.NoError(l, err)
		require.Equal(l, []string{"latest"}, tags)

		// Layers of which it knows where they are, it mounts.
		l.tell("tags")
		elsewhere, err := name.NewTag(l.host()+"/lab/ggcr-mounted:latest", name.Insecure)
		require.NoError(l, err)
		mountable, err := remote.Image(ref, l.ggcr()...)
		require.NoError(l, err)
		require.NoError(l, remote.Write(elsewhere, mountable, l.ggcr()...))
		sends, _, _ := l.tell("mount")
		require.Less(l, sends, 20)

		denied, err := name.NewTag(l.host()+"/readonly/ggcr:latest", name.Insecure)
		require.NoError(l, err)
		var refusal *transport.Error
		require.ErrorAs(l, remote.Write(denied, image, l.ggcr()...), &refusal)
		require.Equal(l, http.StatusUnauthorized, refusal.StatusCode)
		_, _, tokens = l.tell("denied push")
		require.LessOrEqual(l, tokens, 2)
	})
}

func TestOras(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		local := memory.New()
		layer := []byte("a layer of oras")
		blob, err := oras.PushBytes(l.Context(), local, v1.MediaTypeImageLayer, layer)
		require.NoError(l, err)
		manifest, err := oras.PackManifest(l.Context(), local, oras.PackManifestVersion1_1, "application/vnd.lab",
			oras.PackManifestOptions{Layers: []v1.Descriptor{blob}})
		require.NoError(l, err)
		require.NoError(l, local.Tag(l.Context(), manifest, "latest"))
		_, err = oras.Copy(l.Context(), local, "latest", l.oras("lab/oras"), "latest", oras.CopyOptions{})
		require.NoError(l, err)
		_, _, tokens := l.tell("push")
		require.LessOrEqual(l, tokens, 2) // for HEAD, and for the upload

		pull := func() {
			l.Helper()
			into := memory.New()
			got, err := oras.Copy(l.Context(), l.oras("lab/oras"), "latest", into, "latest", oras.CopyOptions{})
			require.NoError(l, err)
			require.Equal(l, manifest.Digest, got.Digest)
			r, err := into.Fetch(l.Context(), blob)
			require.NoError(l, err)
			data, err := io.ReadAll(r)
			require.NoError(l, err)
			require.Equal(l, layer, data)
		}
		pull()
		_, refusals, tokens := l.tell("pull")
		require.Equal(l, []int{0, 0}, []int{refusals, tokens}, "refusals, token requests")
		l.client = l.newClient(&registry.Scheme{Credentials: user})
		pull()
		_, refusals, tokens = l.tell("pull by another program")
		require.Equal(l, []int{1, 1}, []int{refusals, tokens}, "refusals, token requests")

		require.NoError(l, l.oras("lab/oras").Tags(l.Context(), "", func(tags []string) error {
			require.Equal(l, []string{"latest"}, tags)
			return nil
		}))

		// A blob that is elsewhere is mounted.
		l.tell("tags")
		to := l.oras("lab/oras-mounted")
		require.NoError(l, to.Mount(l.Context(), blob, "lab/oras", nil))
		sends, _, tokens := l.tell("mount")
		require.Equal(l, []int{2, 1}, []int{sends, tokens}, "sends, token requests")

		require.ErrorContains(l, l.oras("readonly/oras").Push(l.Context(), blob, bytes.NewReader(layer)), "401")
		_, _, tokens = l.tell("denied push")
		require.LessOrEqual(l, tokens, 2)
	})
}

// Both go on while tokens end and the key rotates.
func TestClientsWhileTokensEnd(t *testing.T) {
	eachRegistry(t, func(l *lab) {
		l.tokens.set(func() { l.tokens.lifetime = 2 * time.Second })
		var image containerregistry.Image
		for i := range 6 {
			var err error
			image, err = random.Image(1<<12, 2)
			require.NoError(l, err)
			image, err = mutate.Config(image, containerregistry.Config{Labels: map[string]string{"n": string(rune('a' + i))}})
			require.NoError(l, err)
			ref, err := name.NewTag(l.host()+"/lab/again:latest", name.Insecure)
			require.NoError(l, err)
			require.NoError(l, remote.Write(ref, image, l.ggcr()...))
			_, err = oras.Copy(l.Context(), l.oras("lab/again"), "latest", memory.New(), "latest", oras.CopyOptions{})
			require.NoError(l, err)
			if i%2 == 1 {
				l.rotate()
			}
			time.Sleep(700 * time.Millisecond) // real time: the registry has a clock of its own
		}
		l.tell("6 pushes and pulls, 3 keys")
	})
}
