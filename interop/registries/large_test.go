package registries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// A stream is a blob that can be read once. It is not a type of which net/http knows how to read it again.
type stream struct {
	source *rand.ChaCha8
	left   int64
	each   func() // called for each 16 MiB, if not nil
	until  int64  // each
}

func newStream(size int64, each func()) *stream {
	return &stream{rand.NewChaCha8([32]byte{}), size, each, size}
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if s.each != nil && s.left <= s.until {
		s.each()
		s.until -= 16 << 20
	}
	n, err := s.source.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}

// digestOfStream returns the digest of the blob of a size.
func digestOfStream(t *testing.T, size int64) string {
	t.Helper()
	hash := sha256.New()
	_, err := io.Copy(hash, newStream(size, nil))
	require.NoError(t, err)
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

// finish ends an upload that has all there is.
func (l *lab) finish(resp *http.Response, digest string) {
	l.Helper()
	require.Equal(l, http.StatusAccepted, resp.StatusCode, "%v", authretry.Explain(resp))
	resp, _ = l.send("PUT", closing(location(l, resp), digest), "", nil, 0)
	require.Equal(l, http.StatusCreated, resp.StatusCode, "%v", authretry.Explain(resp))
}

// A wire counts the bytes that a client sends, by connections to whichever registry is asked now.
type wire struct{ sent atomic.Int64 }

// past has a client send by the wire, past the recorder.
func (w *wire) past(l *lab, client *http.Client) *http.Client {
	var d net.Dialer
	base := client.Transport.(*authretry.Transport).Base.(*http.Transport)
	base.DisableKeepAlives = true // or one would lead to a registry that is not asked any more
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, l.current.Load().Host)
		if err != nil {
			return nil, err
		}
		return countingConn{conn, w}, nil
	}
	return client
}

type countingConn struct {
	net.Conn
	w *wire
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.w.sent.Add(int64(n))
	return n, err
}

const headers = 64 << 10 // more than all that is sent besides a blob

// A large blob is sent once, and is not kept in memory: by PUT, and without a length by PATCH.
func TestLargeBlob(t *testing.T) {
	const size = 256 << 20
	digest := digestOfStream(t, size)
	eachRegistry(t, func(l *lab) {
		var w wire
		l.client = w.past(l, l.client)
		for _, method := range []string{"PUT", "PATCH"} {
			upload := l.startUpload("lab/" + strings.ToLower(method))
			var before, during runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var most uint64
			body := newStream(size, func() {
				runtime.ReadMemStats(&during)
				most = max(most, during.HeapInuse)
			})
			w.sent.Store(0)
			if method == "PUT" {
				resp, _ := l.send("PUT", closing(upload, digest), "application/octet-stream", body, size)
				require.Equal(l, http.StatusCreated, resp.StatusCode, "%v", authretry.Explain(resp))
			} else {
				resp, _ := l.send("PATCH", upload.String(), "application/octet-stream", body, 0)
				l.finish(resp, digest)
			}
			more, sent := int64(most)-int64(before.HeapInuse), w.sent.Load()
			l.Logf("%s: %d KiB more memory, %d bytes sent besides", method, more>>10, sent-size)
			require.Less(l, sent, int64(size+size>>8), "sent once")
			require.LessOrEqual(l, more, int64(24<<20))
		}
	})
}

// A large blob that can be read once is not sent to a registry of which nothing is known before that has said what it wants.
func TestLargeBlobWithoutAToken(t *testing.T) {
	const size = 32 << 20
	digest := digestOfStream(t, size)
	eachRegistry(t, func(l *lab) {
		upload := l.startUpload("lab/app")
		var w wire
		l.client = w.past(l, l.newClient(&registry.Scheme{Credentials: user}))
		resp, _ := l.send("PUT", closing(upload, digest), "application/octet-stream", newStream(size, nil), size)
		require.Equal(l, http.StatusCreated, resp.StatusCode, "%v", authretry.Explain(resp))
		require.Less(l, w.sent.Load(), int64(size+headers), "sent once")
	})
}

// A token that ends while a push goes on is replaced before the next blob.
func TestTokenEndsDuringAPush(t *testing.T) {
	const size = 32 << 20
	digest := digestOfStream(t, size)
	eachRegistry(t, func(l *lab) {
		l.tokens.set(func() { l.tokens.lifetime = 2 * time.Second })
		var w wire
		l.client = w.past(l, l.client)
		upload := l.startUpload("lab/app")
		time.Sleep(3500 * time.Millisecond) // real time: the registry has a clock of its own
		w.sent.Store(0)
		resp, _ := l.send("PUT", closing(upload, digest), "application/octet-stream", newStream(size, nil), size)
		require.Equal(l, http.StatusCreated, resp.StatusCode, "%v", authretry.Explain(resp))
		require.Less(l, w.sent.Load(), int64(size+headers), "sent once")
		require.Len(l, l.tokens.take(), 2)
	})
}

// If the key rotates between the blobs of a push, the refusal comes while the next one is being sent. If little of it had been sent
// by then, it arrives all the same. If not, it fails, for this registry closes the connection: then the upload can be begun anew.
func TestKeyRotatesDuringAPush(t *testing.T) {
	const size = 32 << 20
	digest := digestOfStream(t, size)
	eachRegistry(t, func(l *lab) {
		var w wire
		l.client = w.past(l, l.client)
		upload := l.startUpload("lab/app")
		l.rotate()
		w.sent.Store(0)
		req, err := http.NewRequest("PUT", closing(upload, digest), newStream(size, nil))
		require.NoError(l, err)
		req.ContentLength = size
		resp, err := l.client.Do(req)
		if err == nil {
			require.NoError(l, resp.Body.Close())
			err = authretry.Explain(resp)
		}
		if err != nil {
			l.Logf("%d bytes had been sent: %v", w.sent.Load(), err)
			if why, ok := errors.AsType[*authretry.Rejection](err); ok {
				require.Equal(l, authretry.ReasonBodyNotReplayable, why.Reason)
			}
			resp, _ = l.send("PUT", closing(l.startUpload("lab/app"), digest), "application/octet-stream", newStream(size, nil), size)
		}
		require.Equal(l, http.StatusCreated, resp.StatusCode, "%v", authretry.Explain(resp))
		require.Len(l, l.tokens.take(), 2)
	})
}
