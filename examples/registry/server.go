package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
)

// A store is a container registry in memory, as far as this example needs one. Who may do what is for others to say.
type store struct {
	mu      sync.Mutex // guards content
	content map[string][]byte
}

// ServeHTTP implements http.Handler.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	repository, upload, isUpload := strings.Cut(r.URL.Path, "/blobs/uploads/")
	switch {
	case r.Method == "POST" && isUpload:
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == "PUT" && isUpload && upload == "1" && digest == r.URL.Query().Get("digest"):
		s.content[repository+"/blobs/"+digest] = body
		w.WriteHeader(http.StatusCreated)
	case r.Method == "PUT" && strings.Contains(r.URL.Path, "/manifests/"):
		s.content[r.URL.Path] = body
		w.WriteHeader(http.StatusCreated)
	case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/tags/list"):
		io.WriteString(w, `{"tags":["latest"]}`)
	case r.Method == "GET" && s.content[r.URL.Path] != nil:
		w.Write(s.content[r.URL.Path])
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
