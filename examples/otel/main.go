// Otel shows authretry's events in OpenTelemetry: a counter of refusals and refreshes, a histogram of how long refreshes
// take, and an event on the span of the request that needed them.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// observe returns a function for Transport.OnEvent that counts events with meter and adds them to the current span.
func observe(meter metric.Meter) (func(context.Context, authretry.Event), error) {
	events, err := meter.Int64Counter("authretry.events", metric.WithDescription("Steps of HTTP authentication"))
	if err != nil {
		return nil, err
	}
	refresh, err := meter.Float64Histogram("authretry.refresh.duration", metric.WithUnit("s"))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, e authretry.Event) {
		// The realm is the server's word: of unbounded variety, so nothing for a metric.
		attrs := []attribute.KeyValue{attribute.String("kind", e.Kind.String()), attribute.String("scheme", e.Scheme)}
		events.Add(ctx, 1, metric.WithAttributes(attrs...))
		if e.Kind == authretry.EventRefreshed {
			refresh.Record(ctx, e.Duration.Seconds())
		}
		span := trace.SpanFromContext(ctx)
		span.AddEvent("authretry."+e.Kind.String(), trace.WithAttributes(attribute.String("scheme", e.Scheme), attribute.Int("status", e.Status)))
		if e.Err != nil {
			span.SetStatus(codes.Error, e.Err.Error())
		}
	}, nil
}

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	// In a program of yours, these have exporters.
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("example")

	onEvent, err := observe(meters.Meter("example"))
	if err != nil {
		return err
	}
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login()}
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}},
		OnEvent: onEvent,
	}}

	for range 3 {
		ctx, span := tracer.Start(context.Background(), "GET /")
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		span.End()
		bearer.ExpireNow()
	}

	for _, span := range spans.Ended() {
		fmt.Fprintln(out, span.Name())
		for _, e := range span.Events() {
			fmt.Fprintln(out, "  ", e.Name)
		}
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		return err
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			total := map[string]int64{}
			for _, p := range data.DataPoints {
				kind, _ := p.Attributes.Value("kind")
				total[kind.AsString()] += p.Value
			}
			fmt.Fprintln(out, m.Name, total)
		case metricdata.Histogram[float64]:
			fmt.Fprintln(out, m.Name, "count", data.DataPoints[0].Count)
		}
	}
	return nil
}
