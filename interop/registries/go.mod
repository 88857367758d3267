module github.com/authretry/authretry/interop/registries

go 1.26.0

require (
	github.com/authretry/authretry v0.0.0
	github.com/authretry/authretry/interop v0.0.0
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
)

replace github.com/authretry/authretry => ../../

replace github.com/authretry/authretry/interop => ../

replace github.com/authretry/authretry/redisstore => ../../redisstore
