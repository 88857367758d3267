// Package guides has a whole program for each of some common uses, as examples whose output is checked by go test.
//
//   - sdk_test.go: an API's client library that is given an *http.Client
//   - proxy_test.go: a corporate proxy that wants a password, and an API behind it
//   - grpc_test.go: gRPC, with credentials.PerRPCCredentials
//   - websocket_test.go: WebSocket, with coder/websocket
//   - sse_test.go: server-sent events
//   - reverseproxy_test.go: httputil.ReverseProxy with the server's own login
//   - from_oauth2_test.go: migrating from oauth2.NewClient
//   - from_icholy_test.go: migrating from icholy/digest
//   - from_reauth_test.go: migrating from code that logs in again after a 401, as SDKs of OpenStack do
//   - from_oras_test.go: migrating from auth.Client of oras-go
//
// A command with login and logout is in examples/cli, a server for many users in examples/many-users, and metrics are in
// otelauthretry.
package guides
