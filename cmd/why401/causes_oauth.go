package main

import (
	"encoding/json"
	"net/http"
	"strings"
)

// oauthErrors are what token endpoints answer (RFC 6749 §5.2, RFC 8707 §2, RFC 9449 §5), besides those in saidSigns, and what to do.
var oauthErrors = map[string]string{
	"unauthorized_client":    "Check the client's ID and secret, and that it may use this grant. Check the tenant or realm in the URL, too.",
	"unsupported_grant_type": "Send a grant_type that the server has. Its metadata names them.",
	"invalid_scope":          "Ask for scopes that this client may have. The documentation names them.",
	"invalid_target":         "Check the resource or the audience. It must be one that the server knows.",
	"invalid_dpop_proof":     "Make a proof for each request. Package dpop does that; compare the clocks, too.",
	"use_dpop_nonce":         "Put the response's DPoP-Nonce into the proof, and send again. Package dpop does that.",
}

// oauthError is for the error of a token endpoint.
func (in *inquiry) oauthError() *cause {
	var answer struct {
		Error       any
		Description any `json:"error_description"`
	}
	if in.resp == nil || in.resp.StatusCode != http.StatusBadRequest && !in.is401() || json.Unmarshal([]byte(in.body), &answer) != nil || in.sign() != nil {
		return nil
	}
	code, _ := answer.Error.(string)
	description, _ := answer.Description.(string)
	fix, ok := oauthErrors[code]
	if !ok && code == "invalid_request" && strings.HasPrefix(description, "AADSTS") {
		fix, ok = "Look the number up at https://login.microsoftonline.com/error", true
	}
	if !ok {
		return nil
	}
	text := "The authorization server refuses: its error is " + code + "."
	if description != "" {
		text = in.clean.quote(strings.TrimRight(strings.Join(strings.Fields(description), " "), "."), mostMessage) + " is what the server says. Its error is " + code + "."
	}
	return &cause{"oauth-error", certain, text, fix}
}

// oauthErrorIn401 is for the same where the status says so, too, and no challenge does.
func (in *inquiry) oauthErrorIn401() *cause {
	if !in.is401() || in.param("error") != "" {
		return nil
	}
	return in.oauthError()
}
