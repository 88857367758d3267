package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// linkRows measures by how much programs grow.
func linkRows(r *report, _ effort) error {
	r.printf("## What it costs to link\n\nPrograms without symbols (-ldflags=\"-s -w\"), beside one with an http.Client alone.\n\n")
	dir, err := os.MkdirTemp("", "bench-link-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var rows []string
	var least int64
	for _, p := range []struct{ name, what string }{
		{"plain", "an http.Client"}, {"retryable", "the same with go-retryablehttp, which authretry needs: regular expressions that are compiled when a program starts, so the linker keeps them"},
		{"digest", "authretry with Digest"}, {"token", "authretry with a TokenSource"},
	} {
		file := filepath.Join(dir, p.name)
		if output, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "./link/"+p.name).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if p.name == "plain" {
			least = info.Size()
		}
		rows = append(rows, fmt.Sprintf("%s | %s | +%s", p.what, size(float64(info.Size())), size(float64(info.Size()-least))))
	}
	r.table("program | size | more", rows)
	return nil
}
