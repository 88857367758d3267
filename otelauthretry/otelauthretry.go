package otelauthretry

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/authretry/authretry"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	scope = "github.com/authretry/authretry/otelauthretry"

	// schemeKey has a name of one of the Transport's Schemes. What a server asks for is on spans only: it can be anything.
	schemeKey  = attribute.Key("authretry.scheme")
	messageKey = attribute.Key("authretry.error.message")
	secondsKey = attribute.Key("authretry.duration")
	waitedKey  = attribute.Key("authretry.waited")

	maxMessage = 1 << 10
)

// seconds are the bounds of the histograms: those of the conventions for HTTP, and some more, since a person may have to log in.
var seconds = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60, 300}

// Config says where events go, and which labels metrics have. The zero Config is valid.
type Config struct {
	// MeterProvider makes the instruments. nil means otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// Attributes are on every metric: to tell one Transport of a program from another, for instance.
	Attributes []attribute.KeyValue

	// Origins lists the origins, such as "https://api.example.com", whose metrics have server.address and server.port. Those of
	// other origins, and of refreshes, which may serve several, have neither: a program that goes where it is sent would have
	// as many time series as there are hosts.
	Origins []string
}

// OnEvent returns a function for authretry.Transport.OnEvent, or a ProxyTransport's, that records metrics, and adds an event to
// the span of the context, if that one is recorded. It is safe for concurrent use, and may serve several Transports; but a
// request that goes through two of them counts twice. It never sets a span's status: whether a refusal is a failure is for
// whoever began the span to say.
//
// An error says that an origin is none, or comes from the MeterProvider.
func OnEvent(c Config) (func(context.Context, authretry.Event), error) {
	r := &recorder{common: slices.Clone(c.Attributes), servers: make(map[string][]attribute.KeyValue)}
	for _, o := range c.Origins {
		origin, server, ok := parseOrigin(o)
		if !ok {
			return nil, fmt.Errorf("otelauthretry: Config.Origins has %.100q, which is not like \"https://api.example.com\" or \"http://localhost:8080\"", o)
		}
		r.servers[origin] = server
	}
	provider := c.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	if err := r.makeInstruments(provider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))); err != nil {
		return nil, fmt.Errorf("otelauthretry: %w", err)
	}
	r.saveFailures.Add(context.Background(), 0, r.labels(&authretry.Event{})) // so that the first failure is seen as an increase
	return r.record, nil
}

// A recorder is not changed after it was made.
type recorder struct {
	common  []attribute.KeyValue
	servers map[string][]attribute.KeyValue // by origin, as events have it

	requests, retries, saveFailures metric.Int64Counter
	refresh, wait                   metric.Float64Histogram
}

func (r *recorder) makeInstruments(m metric.Meter) error {
	for _, c := range []struct {
		counter                 *metric.Int64Counter
		name, unit, description string
	}{
		{&r.requests, "authretry.requests", "{request}", "Requests that have ended; error.type says why one was refused or failed."},
		{&r.retries, "authretry.retries", "{retry}", "Requests that were sent again with other credentials."},
		{&r.saveFailures, "authretry.token.save.failures", "{failure}", "Attempts to save a token that failed; it is lost if the process ends now."},
	} {
		var err error
		if *c.counter, err = m.Int64Counter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description)); err != nil {
			return err
		}
	}
	for _, h := range []struct {
		histogram         *metric.Float64Histogram
		name, description string
	}{
		{&r.refresh, "authretry.token.refresh.duration", "Refreshes of tokens; error.type says why one failed."},
		{&r.wait, "authretry.credentials.wait.duration", "How long a request waited for its credentials, such as a token."},
	} {
		var err error
		if *h.histogram, err = m.Float64Histogram(h.name, metric.WithUnit("s"), metric.WithDescription(h.description),
			metric.WithExplicitBucketBoundaries(seconds...)); err != nil {
			return err
		}
	}
	return nil
}

// record is the function for OnEvent.
func (r *recorder) record(ctx context.Context, e authretry.Event) {
	failure := errorType(&e)
	r.measure(ctx, &e, failure)
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("authretry."+strings.ReplaceAll(e.Kind.String(), " ", "_"), trace.WithAttributes(describe(&e, failure)...))
	}
}

func (r *recorder) measure(ctx context.Context, e *authretry.Event, failure string) {
	switch e.Kind {
	case authretry.EventAuthorized:
		if e.Attempt == 2 {
			r.retries.Add(ctx, 1, r.labels(e, schemeKey.String(e.Scheme)))
		}
	case authretry.EventRefreshed:
		if isNoRefresh(e.Err) {
			return
		}
		r.refresh.Record(ctx, e.Duration.Seconds(), r.labels(e, withType(failure)...))
		if failure == typeNotSaved {
			r.saveFailures.Add(ctx, 1, r.labels(e))
		}
	case authretry.EventNotSaved:
		r.saveFailures.Add(ctx, 1, r.labels(e))
	case authretry.EventDone:
		labels := withType(failure)
		if e.Status != 0 {
			labels = append(labels, semconv.HTTPResponseStatusCode(e.Status))
		}
		r.requests.Add(ctx, 1, r.labels(e, labels...))
		r.wait.Record(ctx, e.Waited.Seconds(), r.labels(e))
	}
}

// labels returns what a measurement is labelled with. All of it is bounded: what the program has chosen, a status code, and
// words of errorType.
func (r *recorder) labels(e *authretry.Event, own ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(own, r.servers[e.Origin], r.common)...))
}

func withType(failure string) []attribute.KeyValue {
	if failure == "" {
		return nil
	}
	return []attribute.KeyValue{semconv.ErrorTypeKey.String(failure)}
}

// describe returns the attributes of a span's event. A span is not counted by them, so that they may say more than those of a metric; but
// not the realm, in which a server can write what it likes.
func describe(e *authretry.Event, failure string) []attribute.KeyValue {
	attributes := withType(failure)
	if _, server, ok := parseOrigin(e.Origin); ok {
		attributes = append(attributes, server...)
	}
	if e.Scheme != "" {
		attributes = append(attributes, schemeKey.String(e.Scheme))
	}
	if e.Attempt > 1 {
		attributes = append(attributes, semconv.HTTPRequestResendCount(e.Attempt-1))
	}
	if e.Status != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(e.Status))
	}
	if e.Duration != 0 {
		attributes = append(attributes, secondsKey.Float64(e.Duration.Seconds()))
	}
	if e.Waited != 0 {
		attributes = append(attributes, waitedKey.Float64(e.Waited.Seconds()))
	}
	if e.Err != nil {
		attributes = append(attributes, messageKey.String(message(e.Err)))
	}
	return attributes
}

func message(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
}

// parseOrigin returns an origin as events have it, and what the conventions call it.
func parseOrigin(s string) (origin string, server []attribute.KeyValue, ok bool) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "", nil, false
	}
	port := map[string]int{"http": 80, "https": 443}[u.Scheme]
	if port == 0 {
		return "", nil, false
	}
	host := strings.ToLower(u.Host)
	if p := u.Port(); p == strconv.Itoa(port) || p == "" {
		host = strings.TrimSuffix(host, ":"+p)
	} else if port, err = strconv.Atoi(p); err != nil {
		return "", nil, false
	}
	return u.Scheme + "://" + host, []attribute.KeyValue{semconv.ServerAddress(strings.ToLower(u.Hostname())), semconv.ServerPort(port)}, true
}
