package registries

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/authretry/authretry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// send sends a request, and returns the response and its body.
func (l *lab) send(method, url, mediaType string, body io.Reader, size int64) (*http.Response, []byte) {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), method, url, body)
	require.NoError(l, err)
	if size != 0 {
		req.ContentLength = size
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header.Set("Accept", v1.MediaTypeImageManifest)
	resp, err := l.client.Do(req)
	require.NoError(l, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(l, err)
	return resp, data
}

// do is send for a path and a small body. It returns the status.
func (l *lab) do(method, path string, body []byte) int {
	l.Helper()
	resp, _ := l.send(method, l.URL+path, "", bytes.NewReader(body), 0)
	return resp.StatusCode
}

// get is do for GET, and must succeed.
func (l *lab) get(path string) []byte {
	l.Helper()
	resp, body := l.send("GET", l.URL+path, "", nil, 0)
	require.Equal(l, http.StatusOK, resp.StatusCode, "%v", authretry.Explain(resp))
	return body
}

// startUpload returns where a blob may be sent to.
func (l *lab) startUpload(repository string) *url.URL {
	l.Helper()
	resp, body := l.send("POST", l.URL+"/v2/"+repository+"/blobs/uploads/", "", nil, 0)
	require.Equal(l, http.StatusAccepted, resp.StatusCode, "%s %v", body, authretry.Explain(resp))
	return location(l, resp)
}

func location(l *lab, resp *http.Response) *url.URL {
	l.Helper()
	to, err := resp.Location()
	require.NoError(l, err)
	return to
}

// closing returns the URL that ends an upload.
func closing(upload *url.URL, sum string) string {
	to := *upload
	query := to.Query()
	query.Set("digest", sum)
	to.RawQuery = query.Encode()
	return to.String()
}

// pushBlob uploads a blob by POST and PUT.
func (l *lab) pushBlob(repository, mediaType string, blob []byte) v1.Descriptor {
	l.Helper()
	sum := digestOf(blob)
	resp, body := l.send("PUT", closing(l.startUpload(repository), sum), "application/octet-stream", bytes.NewReader(blob), 0)
	require.Equal(l, http.StatusCreated, resp.StatusCode, "%s %v", body, authretry.Explain(resp))
	return v1.Descriptor{MediaType: mediaType, Digest: digest.Digest(sum), Size: int64(len(blob))}
}

// pushManifest uploads the manifest of an image.
func (l *lab) pushManifest(repository, tag string, config, layer v1.Descriptor) {
	l.Helper()
	text, err := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: []v1.Descriptor{layer}})
	require.NoError(l, err)
	resp, body := l.send("PUT", l.URL+"/v2/"+repository+"/manifests/"+tag, v1.MediaTypeImageManifest, bytes.NewReader(text), 0)
	require.Equal(l, http.StatusCreated, resp.StatusCode, "%s %v", body, authretry.Explain(resp))
}

// pushImage pushes a small image.
func (l *lab) pushImage(repository string, layer []byte) (config, layers v1.Descriptor) {
	l.Helper()
	config = l.pushBlob(repository, v1.MediaTypeImageConfig, []byte("{}"))
	layers = l.pushBlob(repository, v1.MediaTypeImageLayer, layer)
	l.pushManifest(repository, "latest", config, layers)
	return config, layers
}
