package otelauthretry_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/otelauthretry"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func ExampleOnEvent() {
	// In a program of yours, these have exporters, and a MeterProvider that is set by otel.SetMeterProvider need not be named.
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("example")

	onEvent, err := otelauthretry.OnEvent(otelauthretry.Config{
		MeterProvider: meters,
		Attributes:    []attribute.KeyValue{attribute.String("client", "reports")},
	})
	if err != nil {
		log.Fatal(err)
	}
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	tokens := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(bearer.ClientCredentials())}
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}},
		OnEvent: onEvent,
	}}

	for range 2 {
		ctx, span := tracer.Start(context.Background(), "GET /")
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			log.Fatal(resp.Status)
		}
		span.End()
		bearer.ExpireNow() // the server no longer wants the token
	}

	for _, span := range spans.Ended() {
		fmt.Println(span.Name())
		for _, e := range span.Events() {
			fmt.Println("  ", e.Name)
		}
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		log.Fatal(err)
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				fmt.Println(m.Name, p.Value, p.Attributes.Encoded(attribute.DefaultEncoder()))
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				fmt.Println(m.Name, "of", p.Count, p.Attributes.Encoded(attribute.DefaultEncoder()))
			}
		}
	}
	// Output:
	// GET /
	//    authretry.refreshing
	//    authretry.refreshed
	//    authretry.authorized
	//    authretry.done
	// GET /
	//    authretry.authorized
	//    authretry.challenged
	//    authretry.refreshing
	//    authretry.refreshed
	//    authretry.authorized
	//    authretry.done
	// authretry.requests 2 client=reports,http.response.status_code=200
	// authretry.retries 1 authretry.scheme=Bearer,client=reports
	// authretry.token.save.failures 0 client=reports
	// authretry.token.refresh.duration of 2 client=reports
	// authretry.credentials.wait.duration of 2 client=reports
}
