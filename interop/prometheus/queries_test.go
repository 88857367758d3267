// Package prometheus runs the queries of otelauthretry's README.md by Prometheus' own engine, over what a program in trouble exports.
package prometheus

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/otelauthretry"
	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"golang.org/x/oauth2"
)

// A world is a program, its API and its authorization server, over some virtual time.
type world struct {
	scrapes   []scrape
	registry  *client.Registry
	transport *authretry.Transport

	refused  bool          // the API refuses everything
	issuer   error         // what the authorization server says; nil: a token
	slow     time.Duration // for so long
	lifetime time.Duration // of a token, as the API has it
	issued   time.Time
	token    string

	mu     sync.Mutex // guards the store, which may be called at any time
	disk   error
	record *authretry.Record
}

type scrape struct {
	at   time.Time
	text []byte
}

func newWorld(t *testing.T) *world {
	w := &world{registry: client.NewRegistry(), lifetime: time.Hour}
	exporter, err := prometheus.New(prometheus.WithRegisterer(w.registry))
	require.NoError(t, err)
	onEvent, err := otelauthretry.OnEvent(otelauthretry.Config{
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		Origins:       []string{"https://api.example.com"},
	})
	require.NoError(t, err)
	w.transport = &authretry.Transport{Base: w, OnEvent: onEvent, Schemes: []authretry.Scheme{&authretry.Bearer{
		Source: &authretry.TokenSource{Fetch: w.fetch, Store: w}}}}
	return w
}

// Load and Update are those of its store.
func (w *world) Load(context.Context) (*authretry.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record, nil
}

func (w *world) Update(ctx context.Context, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, err := fn(ctx, w.record, func(context.Context) error { return nil })
	if err != nil || r == nil {
		return err
	}
	if w.disk != nil {
		return w.disk
	}
	w.record = r
	return nil
}

func (w *world) fill(disk error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disk = disk
}

func (w *world) fetch(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
	time.Sleep(w.slow)
	if w.issuer != nil {
		return nil, w.issuer
	}
	w.issued, w.token = time.Now(), time.Now().Format(time.RFC3339Nano)
	return &oauth2.Token{AccessToken: w.token, Expiry: w.issued.Add(time.Hour)}, nil
}

// RoundTrip is the API's.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(100 * time.Millisecond)
	resp := &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), Body: http.NoBody, Request: req}
	if w.refused || req.Header.Get("Authorization") != "Bearer "+w.token || time.Since(w.issued) >= w.lifetime {
		resp.StatusCode = http.StatusUnauthorized
		resp.Header.Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token"`)
	}
	return resp, nil
}

// live lets some time pass: a request each second, a scrape every 15.
func (w *world) live(t *testing.T, d time.Duration) {
	end := time.Now().Add(d)
	for n := 0; time.Now().Before(end); n++ {
		next := time.Now().Add(time.Second)
		if resp, err := w.transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil)); err == nil {
			require.NoError(t, resp.Body.Close())
		}
		if n%15 == 0 {
			answer := httptest.NewRecorder()
			promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
			w.scrapes = append(w.scrapes, scrape{time.Now(), answer.Body.Bytes()})
		}
		time.Sleep(time.Until(next))
	}
}

// query returns what the query has for the end of the scrapes, by error_type.
func (w *world) query(t *testing.T, query string) map[string]float64 {
	series := w.series(t)
	storage := &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			return &seriesSet{left: slices.DeleteFunc(slices.Clone(series), func(s *promql.Series) bool {
				return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Metric.Get(m.Name)) })
			})}
		},
	}}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler), Parser: parser.NewParser(parser.Options{})})
	defer engine.Close()
	q, err := engine.NewInstantQuery(t.Context(), storage, nil, query, w.scrapes[len(w.scrapes)-1].at)
	require.NoError(t, err)
	defer q.Close()
	result := q.Exec(t.Context())
	require.NoError(t, result.Err)
	vector, err := result.Vector()
	require.NoError(t, err)
	values := make(map[string]float64)
	for _, s := range vector {
		if !math.IsNaN(s.F) {
			values[s.Metric.Get("error_type")] = s.F
		}
	}
	return values
}

// series returns the time series that the scrapes have, each with its samples in order.
func (w *world) series(t *testing.T) (all []*promql.Series) {
	known := make(map[uint64]*promql.Series)
	for _, s := range w.scrapes {
		p, err := textparse.New(s.text, "text/plain; version=0.0.4", labels.NewSymbolTable(), textparse.ParserOptions{})
		require.NoError(t, err)
		for {
			entry, err := p.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if entry != textparse.EntrySeries {
				continue
			}
			var set labels.Labels
			p.Labels(&set)
			_, _, value := p.Series()
			if known[set.Hash()] == nil {
				known[set.Hash()] = &promql.Series{Metric: set}
				all = append(all, known[set.Hash()])
			}
			one := known[set.Hash()]
			one.Floats = append(one.Floats, promql.FPoint{T: s.at.UnixMilli(), F: value})
		}
	}
	return all
}

// A seriesSet hands out series one after the other.
type seriesSet struct {
	left []*promql.Series
	at   storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = promql.NewStorageSeries(*s.left[0]), s.left[1:]
	return true
}

func (s *seriesSet) At() storage.Series                { return s.at }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// queriesOf returns the queries in README.md.
func queriesOf(t *testing.T) (queries []string) {
	readme, err := os.ReadFile("../../otelauthretry/README.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		queries = append(queries, strings.TrimSpace(m[1]))
	}
	require.Len(t, queries, 5)
	return queries
}

// Each query tells the trouble that it is for from all being well.
func TestQueriesOfREADME(t *testing.T) {
	queries := queriesOf(t)
	const refusals, refreshes, waits, retries, unsaved = 0, 1, 2, 3, 4
	for name, test := range map[string]struct {
		trouble func(*world)
		check   func(t *testing.T, results []map[string]float64)
	}{
		"none": {func(*world) {}, func(t *testing.T, results []map[string]float64) {
			require.Empty(t, results[refusals])
			require.Empty(t, results[refreshes])
			require.LessOrEqual(t, results[waits][""], .005)
			require.Zero(t, results[retries][""])
			require.Empty(t, results[unsaved])
		}},
		"the API refuses": {func(w *world) { w.refused = true }, func(t *testing.T, results []map[string]float64) {
			require.Equal(t, 1., total(results[refusals]), results)
			require.Contains(t, results[refusals], "fresh_token_refused")
		}},
		"the client's secret has ended": {func(w *world) {
			w.issuer, w.lifetime = &oauth2.RetrieveError{ErrorCode: "invalid_client", Response: &http.Response{StatusCode: 401}}, time.Minute
		}, func(t *testing.T, results []map[string]float64) {
			require.Contains(t, results[refreshes], "invalid_client")
			require.InDelta(t, 1, results[refusals]["login_required"], .01)
		}},
		"the authorization server is down": {func(w *world) {
			w.issuer, w.lifetime = &oauth2.RetrieveError{Response: &http.Response{StatusCode: 503}}, time.Minute
		}, func(t *testing.T, results []map[string]float64) {
			require.Contains(t, results[refreshes], "503")
			require.InDelta(t, 1, results[refusals]["no_credentials"], .01)
		}},
		"the authorization server is slow": {func(w *world) { w.slow, w.lifetime = 8*time.Second, 10*time.Second }, func(t *testing.T, results []map[string]float64) {
			require.InDelta(t, 8, results[waits][""], 2)
		}},
		"tokens end early": {func(w *world) { w.lifetime = 2 * time.Second }, func(t *testing.T, results []map[string]float64) {
			require.InDelta(t, .5, results[retries][""], .1)
			require.Empty(t, results[refusals])
		}},
		"the disk is full": {func(w *world) { w.fill(errors.New("disk full")); w.lifetime = time.Minute }, func(t *testing.T, results []map[string]float64) {
			require.Greater(t, results[unsaved][""], 1.)
			require.Contains(t, results[refreshes], "not_saved")
			require.Empty(t, results[refusals], "the token is in use all the same")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var w *world
			synctest.Test(t, func(t *testing.T) {
				w = newWorld(t)
				w.live(t, 20*time.Minute)
				test.trouble(w)
				w.live(t, 10*time.Minute)
				w.fill(nil) // or else there is a timer that saves again for ever
				time.Sleep(time.Minute)
			})
			var results []map[string]float64
			for _, query := range queries {
				results = append(results, w.query(t, query))
			}
			t.Log(results)
			test.check(t, results)
		})
	}
}

func total(values map[string]float64) (sum float64) {
	for _, v := range slices.Sorted(maps.Values(values)) {
		sum += v
	}
	return sum
}
