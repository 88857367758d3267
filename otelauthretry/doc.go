// Package otelauthretry shows in OpenTelemetry what authretry does: as metrics, and as events of the request's span. It uses the API
// alone, so that it costs next to nothing where no SDK is set up.
//
//	onEvent, err := otelauthretry.OnEvent(otelauthretry.Config{Origins: []string{"https://api.example.com"}})
//	if err != nil {
//		return err
//	}
//	client := &http.Client{Transport: &authretry.Transport{Schemes: schemes, OnEvent: onEvent}}
//
// # Metrics
//
//	name                                  kind, unit            labels of its own
//	authretry.requests                    counter, {request}    http.response.status_code, error.type
//	authretry.retries                     counter, {retry}      authretry.scheme
//	authretry.token.refresh.duration      histogram, s          error.type
//	authretry.credentials.wait.duration   histogram, s
//	authretry.token.save.failures         counter, {failure}
//
// All have server.address and server.port for the origins that [Config] lists, but for those about tokens, which may serve several.
// Nothing else that a server or a user writes becomes a label: no realm, no scheme that a server asks for, no host that is not listed, no account.
//
// # Errors
//
// As OpenTelemetry's conventions have it, one metric counts what went well and what did not, and error.type tells them
// apart. Where it is missing, nothing went wrong that is about authentication: a 500 has none here.
//
// For a request, error.type is the authretry.Reason in lower case with underscores, such as credentials_refused,
// no_credentials or insufficient_scope; or login_required, canceled, timeout or _OTHER. For a refresh it is the
// token endpoint's error code, such as invalid_grant, if it is one of those that are registered; else its status, such as 503; or login_required,
// token_refused, not_saved (the token is in use, but could not be saved), canceled, timeout or _OTHER.
//
// # Spans
//
// Each authretry.Event becomes an event of the span in the request's context, called authretry.authorized, authretry.challenged,
// authretry.refreshed and so on. Its attributes say more than those of a metric can: server.address, server.port, authretry.scheme,
// http.request.resend_count, http.response.status_code, error.type, authretry.error.message (1 KiB at most), authretry.duration and
// authretry.waited (both in seconds). The status of a span is left to whoever has begun it. A refresh belongs to the span of the request that
// caused it, as long as that has not ended.
//
// README.md has the five queries to look at first when something is wrong.
package otelauthretry
