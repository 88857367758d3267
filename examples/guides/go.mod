module github.com/authretry/authretry/examples/guides

go 1.26.0

require (
	github.com/authretry/authretry v0.1.0
	github.com/coder/websocket v1.8.15
	github.com/icholy/digest v1.2.0
	golang.org/x/oauth2 v0.37.0
	google.golang.org/grpc v1.84.0
	oras.land/oras-go/v2 v2.7.0
)

require (
	github.com/gofrs/flock v0.13.1 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260706201446-f0a921348800 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

replace github.com/authretry/authretry => ../..
