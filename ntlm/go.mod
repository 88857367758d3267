module github.com/authretry/authretry/ntlm

go 1.26.0

require (
	github.com/Azure/go-ntlmssp v0.1.1
	github.com/authretry/authretry v0.1.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/crypto v0.59.0
)

require (
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
)

replace github.com/authretry/authretry => ../
