module github.com/authretry/authretry/interop/kerberos

go 1.26.0

replace github.com/authretry/authretry => ../../

replace github.com/authretry/authretry/interop => ../

replace github.com/authretry/authretry/negotiate => ../../negotiate

replace github.com/authretry/authretry/redisstore => ../../redisstore

replace github.com/authretry/authretry/sqlstore => ../../sqlstore

replace github.com/authretry/authretry/keyringstore => ../../keyringstore

require (
	github.com/authretry/authretry v0.1.0
	github.com/authretry/authretry/interop v0.1.0
	github.com/authretry/authretry/negotiate v0.1.0
	github.com/jcmturner/gokrb5/v8 v8.4.4
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/alexbrainman/sspi v0.0.0-20250919150558-7d374ff0d59e // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/hashicorp/go-uuid v1.0.3 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/jcmturner/aescts/v2 v2.0.0 // indirect
	github.com/jcmturner/dnsutils/v2 v2.0.0 // indirect
	github.com/jcmturner/gofork v1.7.6 // indirect
	github.com/jcmturner/rpc/v2 v2.0.3 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
)
