module github.com/authretry/authretry/interop/ntlm

go 1.26.0

require (
	github.com/authretry/authretry v0.1.0
	github.com/authretry/authretry/interop v0.1.0
	github.com/authretry/authretry/ntlm v0.1.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/Azure/go-ntlmssp v0.1.1 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
)

replace github.com/authretry/authretry => ../../

replace github.com/authretry/authretry/interop => ../

replace github.com/authretry/authretry/ntlm => ../../ntlm

replace github.com/authretry/authretry/redisstore => ../../redisstore
