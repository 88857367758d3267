package otelauthretry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/otelauthretry"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/oauth2"
)

// A probe collects what comes out.
type probe struct {
	reader *sdkmetric.ManualReader
	listen func(context.Context, authretry.Event)
}

func newProbe(t *testing.T, c otelauthretry.Config) *probe {
	p := &probe{reader: sdkmetric.NewManualReader()}
	c.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader))
	var err error
	p.listen, err = otelauthretry.OnEvent(c)
	require.NoError(t, err)
	return p
}

// series returns each time series, such as "authretry.requests{error.type=timeout}", and its count.
// Those that have counted nothing yet are left out.
func (p *probe) series(t *testing.T) map[string]int {
	var collected metricdata.ResourceMetrics
	require.NoError(t, p.reader.Collect(context.Background(), &collected))
	series := make(map[string]int)
	for _, s := range collected.ScopeMetrics {
		require.Equal(t, "github.com/authretry/authretry/otelauthretry", s.Scope.Name)
		for _, m := range s.Metrics {
			require.NotEmpty(t, m.Description, m.Name)
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				require.True(t, data.IsMonotonic)
				for _, d := range data.DataPoints {
					if d.Value != 0 {
						series[name(m, d.Attributes)] = int(d.Value)
					}
				}
			case metricdata.Histogram[float64]:
				require.Equal(t, "s", m.Unit)
				for _, d := range data.DataPoints {
					series[name(m, d.Attributes)] = int(d.Count)
				}
			default:
				t.Fatalf("%s is a %T", m.Name, data)
			}
		}
	}
	return series
}

func name(m metricdata.Metrics, labels attribute.Set) string {
	return m.Name + "{" + labels.Encoded(attribute.DefaultEncoder()) + "}"
}

func TestMetricsOfALogin(t *testing.T) {
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	p := newProbe(t, otelauthretry.Config{Origins: []string{srv.URL + "/"}, Attributes: []attribute.KeyValue{attribute.String("client", "c")}})
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login()}
	client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}}, OnEvent: p.listen}}
	get := func() {
		if resp, err := client.Get(srv.URL); err == nil {
			resp.Body.Close()
		}
	}
	get()
	bearer.ExpireNow()
	get()
	token, err := tokens.Token()
	require.NoError(t, err)
	bearer.Revoke(token.RefreshToken)
	get()
	_, port, _ := strings.Cut(strings.TrimPrefix(srv.URL, "http://"), ":")
	server := "server.address=127.0.0.1,server.port=" + port
	require.Equal(t, map[string]int{
		"authretry.requests{client=c,http.response.status_code=200," + server + "}": 2,
		"authretry.requests{client=c,error.type=login_required," + server + "}":     1,
		"authretry.retries{authretry.scheme=Bearer,client=c," + server + "}":        1,
		"authretry.token.refresh.duration{client=c}":                                1,
		"authretry.token.refresh.duration{client=c,error.type=invalid_grant}":       1,
		"authretry.credentials.wait.duration{client=c," + server + "}":              3,
	}, p.series(t))
}

func TestMetricsOfARefusal(t *testing.T) {
	srv := authtest.NewServer(&authtest.Basic{Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	p := newProbe(t, otelauthretry.Config{})
	client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{&authretry.Basic{Username: "Mufasa", Password: "wrong"}}, OnEvent: p.listen}}
	for range 2 {
		resp, err := client.Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Equal(t, map[string]int{
		"authretry.requests{error.type=credentials_refused,http.response.status_code=401}": 2,
		"authretry.retries{authretry.scheme=Basic}":                                        2,
		"authretry.credentials.wait.duration{}":                                            2,
	}, p.series(t))
}

// A request that is refused by a proxy before its tunnel is there ends in an error, which counts once.
func TestMetricsOfARefusedTunnel(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer proxy.Close()
	p := newProbe(t, otelauthretry.Config{})
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.Proxy = func(req *http.Request) (*url.URL, error) { return req.URL.Parse(proxy.URL) }
	through := authretry.NewProxyTransport(base, &authretry.Basic{Username: "Mufasa", Password: "wrong"})
	through.OnEvent = p.listen
	_, err := (&http.Client{Transport: through}).Get("https://api.test/")
	require.Error(t, err)
	series := p.series(t)
	require.Equal(t, 1, series["authretry.requests{error.type=proxy_authentication}"], series)
	require.Equal(t, 1, series["authretry.retries{authretry.scheme=Basic}"], series)
}

// A wait is that of the request, whoever has begun the refresh.
func TestWaitIsThatOfEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t, otelauthretry.Config{})
		fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			time.Sleep(3 * time.Second)
			return &oauth2.Token{AccessToken: "t"}, nil
		}
		transport := &authretry.Transport{Base: answering(200), OnEvent: p.listen,
			Schemes: []authretry.Scheme{&authretry.Bearer{Source: &authretry.TokenSource{Fetch: fetch}}}}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil)); assert.NoError(t, err) {
					resp.Body.Close()
				}
			})
		}
		all.Wait()
		var collected metricdata.ResourceMetrics
		require.NoError(t, p.reader.Collect(context.Background(), &collected))
		sums := make(map[string]float64)
		for _, m := range collected.ScopeMetrics[0].Metrics {
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
				sums[m.Name] = h.DataPoints[0].Sum
			}
		}
		require.Equal(t, map[string]float64{"authretry.token.refresh.duration": 3, "authretry.credentials.wait.duration": 30}, sums)
	})
}

type answering int

func (status answering) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(status), Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// Whatever servers and users write, the time series are those of the program.
func TestLabelsAreBounded(t *testing.T) {
	n := 0
	p := newProbe(t, otelauthretry.Config{Origins: []string{"https://api.example.com"}})
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n++
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {
			fmt.Sprintf(`X%d realm="r%d", Basic realm="r%d", Digest realm="r%d", nonce="n%d", qop="auth", algorithm=A%d`, n, n, n, n, n, n)}}}, nil
	})
	transport := &authretry.Transport{Base: base, OnEvent: p.listen, Account: func(req *http.Request) string { return req.URL.Path },
		Schemes: []authretry.Scheme{&authretry.Basic{Username: "u", Password: "p"}}}
	for i := range 1000 {
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", fmt.Sprintf("https://host%d.example.com/%d", i, i), nil))
		require.NoError(t, err)
		resp.Body.Close()
		code := &oauth2.RetrieveError{ErrorCode: fmt.Sprintf("code%d", i), Response: &http.Response{StatusCode: i * 1000}}
		p.listen(t.Context(), authretry.Event{Kind: authretry.EventRefreshed, Err: fmt.Errorf("%d: %w", i, code)})
		p.listen(t.Context(), authretry.Event{Kind: authretry.EventDone, Err: fmt.Errorf("error %d", i)})
	}
	require.Equal(t, map[string]int{
		"authretry.requests{error.type=credentials_refused,http.response.status_code=401}": 1000,
		"authretry.requests{error.type=_OTHER}":                                            1000,
		"authretry.retries{authretry.scheme=Basic}":                                        1000,
		"authretry.token.refresh.duration{error.type=_OTHER}":                              1000,
		"authretry.credentials.wait.duration{}":                                            2000,
	}, p.series(t))
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestErrorTypes(t *testing.T) {
	retrieve := func(code string, status int) error {
		return fmt.Errorf("wrapped: %w", &oauth2.RetrieveError{ErrorCode: code, Response: &http.Response{StatusCode: status}})
	}
	for _, test := range []struct {
		event authretry.Event
		want  string // "": none
	}{
		{authretry.Event{Kind: authretry.EventDone, Status: 200}, ""},
		{authretry.Event{Kind: authretry.EventDone, Status: 500}, ""},
		{authretry.Event{Kind: authretry.EventDone, Status: 401, Reason: authretry.ReasonOwnAuthorization}, "own_authorization_header"},
		{authretry.Event{Kind: authretry.EventDone, Reason: authretry.ReasonNoCredentials, Err: fmt.Errorf("x: %w", authretry.ErrLoginRequired)}, "login_required"},
		{authretry.Event{Kind: authretry.EventDone, Reason: authretry.ReasonNoCredentials, Err: context.DeadlineExceeded}, "no_credentials"},
		{authretry.Event{Kind: authretry.EventDone, Err: context.DeadlineExceeded}, "timeout"},
		{authretry.Event{Kind: authretry.EventDone, Err: timeoutError{}}, "timeout"},
		{authretry.Event{Kind: authretry.EventDone, Err: context.Canceled}, "canceled"},
		{authretry.Event{Kind: authretry.EventDone, Err: errors.New("broken pipe")}, "_OTHER"},
		{authretry.Event{Kind: authretry.EventRefreshed}, ""},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: retrieve("invalid_client", 401)}, "invalid_client"},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: retrieve("of its own", 503)}, "503"},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: &oauth2.RetrieveError{}}, "_OTHER"},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: authretry.ErrLoginRequired}, "login_required"},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: authretry.ErrTokenRefused}, "token_refused"},
		{authretry.Event{Kind: authretry.EventRefreshed, Err: fmt.Errorf("%w: %w", authretry.ErrNotSaved, context.DeadlineExceeded)}, "not_saved"},
	} {
		p := newProbe(t, otelauthretry.Config{})
		p.listen(t.Context(), test.event)
		want := ""
		if test.want != "" {
			want = "error.type=" + test.want
		}
		if test.event.Status != 0 {
			want = strings.Trim(want+fmt.Sprintf(",http.response.status_code=%d", test.event.Status), ",")
		}
		metric := "authretry.requests"
		if test.event.Kind == authretry.EventRefreshed {
			metric = "authretry.token.refresh.duration"
		}
		require.Equal(t, 1, p.series(t)[metric+"{"+want+"}"], "%v: %v", test.event, p.series(t))
	}
}

type timeoutError struct{}

func (timeoutError) Error() string { return "i/o" }
func (timeoutError) Timeout() bool { return true }

func TestTokensThatCouldNotBeSavedCount(t *testing.T) {
	p := newProbe(t, otelauthretry.Config{})
	p.listen(t.Context(), authretry.Event{Kind: authretry.EventRefreshed, Err: authretry.ErrNotSaved})
	p.listen(t.Context(), authretry.Event{Kind: authretry.EventNotSaved, Err: authretry.ErrNotSaved})
	p.listen(t.Context(), authretry.Event{Kind: authretry.EventRefreshed, Err: authretry.ErrChallengeRequired}) // nothing was asked
	require.Equal(t, map[string]int{
		"authretry.token.save.failures{}":                        2,
		"authretry.token.refresh.duration{error.type=not_saved}": 1,
	}, p.series(t))
}

func TestSpanEvents(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t").Start(t.Context(), "work")
	p := newProbe(t, otelauthretry.Config{})
	long := strings.Repeat("é", 1000)
	p.listen(ctx, authretry.Event{Kind: authretry.EventChallenged, Origin: "https://[::1]:8443", Scheme: "Digest, Basic", Realm: "r", Attempt: 2, Status: 401})
	p.listen(ctx, authretry.Event{Kind: authretry.EventNotSaved, Scheme: "Bearer", Err: fmt.Errorf("%w%s", errors.New("x"), long)})
	p.listen(ctx, authretry.Event{Kind: authretry.EventDone, Origin: "https://api.example.com", Attempt: 1, Reason: authretry.ReasonNoCredentials, Duration: 2 * time.Second, Waited: time.Second, Err: errors.New("no")})
	span.End()
	p.listen(ctx, authretry.Event{Kind: authretry.EventRefreshed}) // nobody records it any more
	require.Len(t, spans.Ended(), 1)
	require.Equal(t, codes.Unset, spans.Ended()[0].Status().Code, "the span is not ours to judge")
	var events []string
	for _, e := range spans.Ended()[0].Events() {
		set := attribute.NewSet(e.Attributes...)
		events = append(events, e.Name+"{"+set.Encoded(attribute.DefaultEncoder())+"}")
	}
	require.Equal(t, []string{
		"authretry.challenged{authretry.scheme=Digest\\, Basic,http.request.resend_count=1,http.response.status_code=401,server.address=::1,server.port=8443}",
		"authretry.not_saved{authretry.error.message=x" + strings.Repeat("é", 511) + ",authretry.scheme=Bearer,error.type=_OTHER}",
		"authretry.done{authretry.duration=2,authretry.error.message=no,authretry.waited=1,error.type=no_credentials,server.address=api.example.com,server.port=443}",
	}, events)
}

func TestOriginsAreWrittenAsEventsHaveThem(t *testing.T) {
	for _, origin := range []string{"https://api.example.com", "https://API.example.com/", "https://api.example.com:443"} {
		p := newProbe(t, otelauthretry.Config{Origins: []string{origin}})
		p.listen(t.Context(), authretry.Event{Kind: authretry.EventDone, Origin: "https://api.example.com", Status: 200})
		require.Contains(t, p.series(t), "authretry.requests{http.response.status_code=200,server.address=api.example.com,server.port=443}", origin)
	}
	p := newProbe(t, otelauthretry.Config{Origins: []string{"http://[::1]:8080"}})
	p.listen(t.Context(), authretry.Event{Kind: authretry.EventDone, Origin: "http://[::1]:8080", Status: 200})
	require.Contains(t, p.series(t), "authretry.requests{http.response.status_code=200,server.address=::1,server.port=8080}")
	for _, origin := range []string{"", "api.example.com", "https://api.example.com/v1", "ftp://api.example.com", "https://u:p@api.example.com", "https://api.example.com?q", "https://api.example.com:99999999999999999999"} {
		_, err := otelauthretry.OnEvent(otelauthretry.Config{Origins: []string{origin}})
		require.ErrorContains(t, err, "Config.Origins", origin)
	}
}

// Without a MeterProvider of its own, it is OpenTelemetry's.
func TestProviderOfTheProgram(t *testing.T) {
	before := otel.GetMeterProvider()
	defer otel.SetMeterProvider(before)
	reader := sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	listen, err := otelauthretry.OnEvent(otelauthretry.Config{})
	require.NoError(t, err)
	listen(t.Context(), authretry.Event{Kind: authretry.EventDone, Status: 200})
	p := &probe{reader: reader}
	require.Contains(t, p.series(t), "authretry.requests{http.response.status_code=200}")
}

func TestErrorOfAProvider(t *testing.T) {
	for _, kind := range []string{"counter", "histogram"} {
		_, err := otelauthretry.OnEvent(otelauthretry.Config{MeterProvider: failing{kind: kind}})
		require.ErrorContains(t, err, "no "+kind)
	}
}

type failing struct {
	noop.MeterProvider
	kind string
}

func (f failing) Meter(string, ...metric.MeterOption) metric.Meter { return failingMeter{kind: f.kind} }

type failingMeter struct {
	noop.Meter
	kind string
}

func (f failingMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	if f.kind == "counter" {
		return nil, errors.New("no counter")
	}
	return noop.Int64Counter{}, nil
}

func (f failingMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errors.New("no histogram")
}

func TestManyRequestsAtOnce(t *testing.T) {
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	p := newProbe(t, otelauthretry.Config{})
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login()}
	transport := &authretry.Transport{Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}}, OnEvent: p.listen}
	client := &http.Client{Transport: transport}
	spans := tracetest.NewSpanRecorder()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t").Start(t.Context(), "work")
	bearer.ExpireNow()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
			if resp, err := client.Do(req); assert.NoError(t, err) {
				resp.Body.Close()
			}
		})
	}
	all.Wait()
	span.End()
	series := p.series(t)
	require.Equal(t, 64, series["authretry.requests{http.response.status_code=200}"])
	require.Equal(t, 1, series["authretry.token.refresh.duration{}"])
}
