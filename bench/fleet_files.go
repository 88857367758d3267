package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"golang.org/x/oauth2"
)

// Where a process of a fleet on a file finds the file, and the token endpoint.
const (
	fleetFile     = "BENCH_FLEET_FILE"
	fleetEndpoint = "BENCH_FLEET_ENDPOINT"
)

// fleetIfChild is what a process of a fleet on a file does: it waits for a line, gets a token, and says how long that took. It returns
// false in any other process.
func fleetIfChild() bool {
	path := os.Getenv(fleetFile)
	if path == "" {
		return false
	}
	source := &authretry.TokenSource{Store: filestore.New(path), Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
		req, err := http.NewRequestWithContext(ctx, "POST", os.Getenv(fleetEndpoint), nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		access, err := io.ReadAll(resp.Body)
		return &oauth2.Token{AccessToken: string(access), RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}, err
	}}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	start := time.Now()
	t, err := source.Token()
	if err != nil || t.AccessToken != "new-1" {
		fmt.Println(-1)
		return true
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return true
}

// fileFleet has a file.
func fileFleet() (*fleetStore, error) {
	dir, err := os.MkdirTemp("", "bench-file-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "login")
	return &fleetStore{
		open: func() (authretry.TokenStore, error) { return filestore.New(path), nil },
		end:  func() { os.RemoveAll(dir) },
		run: func(replicas int, endpoint time.Duration) (fleetResult, error) {
			return runProcesses(path, replicas, endpoint)
		},
	}, nil
}

// runProcesses has processes find an expired token at once.
func runProcesses(path string, replicas int, endpoint time.Duration) (x fleetResult, err error) {
	x = fleetResult{replicas: replicas, endpoint: endpoint}
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := requests.Add(1)
		time.Sleep(endpoint)
		fmt.Fprint(w, "new-", n)
	}))
	defer srv.Close()
	exe, err := os.Executable()
	if err != nil {
		return x, err
	}
	ready, go_ := make(chan error, replicas), make(chan struct{})
	served := make([]time.Duration, replicas)
	var all sync.WaitGroup
	for i := range served {
		all.Go(func() {
			var err error
			if served[i], err = runProcess(exe, []string{fleetFile + "=" + path, fleetEndpoint + "=" + srv.URL}, ready, go_); err != nil {
				ready <- err
			}
		})
	}
	var failed error
	for range replicas {
		failed = errors.Join(failed, <-ready)
	}
	close(go_)
	all.Wait()
	if failed != nil {
		return x, failed
	}
	for _, took := range served {
		if took <= 0 {
			x.failures++
		}
	}
	x.tokenRequests = int(requests.Load())
	x.serve(served)
	return x, nil
}

// runProcess runs one process, and returns how long that one has waited for its token.
func runProcess(exe string, env []string, ready chan<- error, start <-chan struct{}) (took time.Duration, err error) {
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	var word string
	if _, err := fmt.Fscan(stdout, &word); err != nil {
		return 0, err
	}
	ready <- nil
	<-start
	stdin.Close()
	var ns int64
	_, _ = fmt.Fscan(stdout, &ns) // 0 if it says nothing
	return time.Duration(ns), nil
}
