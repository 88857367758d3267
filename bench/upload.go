package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// An uploadResult is what the upload of a body that can be read once took.
type uploadResult struct {
	name     string
	wrong    string
	resident int64 // the most bytes of memory, over those before
	wire     int64 // bytes that the server got
	requests int
	seconds  float64
}

// A child process uploads, so that its memory is the peer's. It gets what to do from its environment, and answers in
// JSON on its standard output.
const childVariable = "AUTHRETRY_BENCH_UPLOAD"

type uploadTask struct {
	Peer, URL string
	Size      int64
}

type uploadReport struct {
	Before, After int64 // VmHWM in bytes
	Seconds       float64
	Error         string
}

// uploadIfChild does the child's work, if this is one.
func uploadIfChild() bool {
	text, ok := os.LookupEnv(childVariable)
	if !ok {
		return false
	}
	var task uploadTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		panic(err)
	}
	json.NewEncoder(os.Stdout).Encode(task.run())
	return true
}

func (task uploadTask) run() (report uploadReport) {
	var rt http.RoundTripper = &http.Transport{}
	if task.Peer != noAuth {
		rt = digestPeers(rt)[task.Peer]
	}
	req, err := http.NewRequest("PUT", task.URL, io.LimitReader(zeros{}, task.Size))
	if err != nil {
		panic(err)
	}
	req.ContentLength = task.Size
	report.Before = highWaterMark()
	start := time.Now()
	defer func() { report.After, report.Seconds = highWaterMark(), time.Since(start).Seconds() }()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		report.Error = err.Error()
		return report
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	switch {
	case resp.StatusCode != 200:
		report.Error = fmt.Sprintf("status %d", resp.StatusCode)
	case resp.Header.Get("X-Body") != strconv.FormatInt(task.Size, 10):
		report.Error = "the server got " + resp.Header.Get("X-Body") + " bytes"
	}
	return report
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// highWaterMark returns the most memory that was resident in this process. It is 0 where there is no /proc.
func highWaterMark() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(line), " kB"), 10, 64)
	return kib << 10
}

// uploadRow uploads once with each peer. The server reads all of a body that it refuses, unless it was asked before.
func uploadRow(e effort) ([]uploadResult, error) {
	var results []uploadResult
	peers := digestPeers(nil)
	peers[noAuth] = nil
	for name := range inOrder(peers) {
		srv := newDigestServer(md5Hashing, name != noAuth, false)
		task, err := json.Marshal(uploadTask{Peer: name, URL: srv.URL + "/upload", Size: e.size})
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+string(task))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		srv.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var report uploadReport
		if err := json.Unmarshal(out, &report); err != nil {
			return nil, err
		}
		results = append(results, uploadResult{
			name: name, wrong: report.Error, resident: report.After - report.Before,
			wire: srv.meter.read.Load(), requests: srv.hits, seconds: report.Seconds,
		})
	}
	return results, nil
}
