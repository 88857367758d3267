// This program pushes a small image to a container registry, lists its tags and pulls it again, by plain net/http, with the
// credentials that docker login has left. For a registry it has one of package authtest.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// A descriptor says what is under a digest (OCI image specification).
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

var client *http.Client

func main() {
	srv := authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: "open sesame"})
	srv.Handle("/v2/", &store{content: map[string][]byte{}})
	dir, err := os.MkdirTemp("", "registry") // which nobody else can have made, and read
	check(err)
	defer os.RemoveAll(dir)
	config := filepath.Join(dir, "config.json") // yours is at ""
	check(os.WriteFile(config, []byte(`{"auths":{"`+strings.TrimPrefix(srv.URL, "http://")+`":{"auth":"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}}}`), 0o600))
	credentials := registry.DockerConfig(config)
	client = &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: credentials}, &authretry.Basic{Credentials: credentials})}
	app := srv.URL + "/v2/lab/app"
	m := manifest{SchemaVersion: 2, MediaType: manifestType,
		Config: push(app, "application/vnd.oci.image.config.v1+json", []byte("{}")),
		Layers: []descriptor{push(app, "application/vnd.oci.image.layer.v1.tar", []byte("a layer"))}}
	text, err := json.Marshal(m)
	check(err)
	send("PUT", app+"/manifests/latest", manifestType, text)
	_, tags := send("GET", app+"/tags/list", "", nil)
	_, text = send("GET", app+"/manifests/latest", "", nil)
	check(json.Unmarshal(text, &m))
	_, layer := send("GET", app+"/blobs/"+m.Layers[0].Digest, "", nil)
	fmt.Printf("tags: %s\nlayer: %s\n", tags, layer)
	fmt.Printf("%d requests, %d token requests\n", srv.Counts().Requests, srv.Counts().TokenRequests)
}

// push uploads a blob: the registry says where to.
func push(repository, mediaType string, blob []byte) descriptor {
	resp, _ := send("POST", repository+"/blobs/uploads/", "", nil)
	to, err := resp.Location()
	check(err)
	d := descriptor{mediaType, fmt.Sprintf("sha256:%x", sha256.Sum256(blob)), len(blob)}
	query := to.Query()
	query.Set("digest", d.Digest)
	to.RawQuery = query.Encode()
	send("PUT", to.String(), "application/octet-stream", blob)
	return d
}

// send sends a request, and returns the response and its body.
func send(method, url, mediaType string, body []byte) (*http.Response, []byte) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	check(err)
	req.Header = http.Header{"Accept": {manifestType}, "Content-Type": {mediaType}}
	resp, err := client.Do(req)
	check(err)
	defer resp.Body.Close()
	check(authretry.Explain(resp)) // why it was refused, if it was
	data, err := io.ReadAll(resp.Body)
	check(err)
	if resp.StatusCode > 299 {
		log.Fatalf("%s %s: %s", method, url, resp.Status)
	}
	return resp, data
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
