package servers

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Jose judges DPoP proofs by the package of that name, as testdata/node/jose.mjs has it. It must not be used concurrently.
type Jose struct {
	t       testing.TB
	to      io.Writer
	answers *bufio.Scanner
}

// A Proof is a proof, and what came along with it. What is "" must not be in the proof.
type Proof struct {
	Proof  string `json:"proof"`
	Method string `json:"method"`
	URI    string `json:"uri"`
	Nonce  string `json:"nonce"`
	Token  string `json:"token"`
}

// A Judgement is what Jose finds of a proof.
type Judgement struct {
	Algorithm, ID, Thumbprint string
	Error                     string // why it is refused
}

// NewJose starts a process, which ends with the test.
func NewJose(t testing.TB) *Jose {
	t.Helper()
	dir, node := nodeFolder(t)
	cmd := exec.Command(node, "jose.mjs")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", node, err)
	}
	t.Cleanup(func() {
		_ = in.Close() // at which it ends
		_ = cmd.Wait()
	})
	return &Jose{t, in, bufio.NewScanner(out)}
}

// Judge returns what is found of a proof.
func (j *Jose) Judge(p Proof) (found Judgement) {
	j.t.Helper()
	if err := json.NewEncoder(j.to).Encode(p); err != nil {
		j.t.Fatalf("jose.mjs takes no proof: %v", err)
	}
	if !j.answers.Scan() {
		j.t.Fatalf("jose.mjs has not answered: %v", j.answers.Err())
	}
	if err := json.Unmarshal(j.answers.Bytes(), &found); err != nil {
		j.t.Fatalf("jose.mjs has answered %q: %v", j.answers.Bytes(), err)
	}
	return found
}
