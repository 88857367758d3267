package authretry_test

import (
	"fmt"
	"net/http"

	"github.com/authretry/authretry"
)

func ExampleParseChallenges() {
	header := http.Header{}
	header.Add("WWW-Authenticate", `Digest realm="cellar", nonce="c2Fs", qop="auth", Basic realm="cellar"`)
	header.Add("WWW-Authenticate", `Bearer error="invalid_token" error_description="it is \"old\""`)

	challenges, err := authretry.ParseChallenges(header.Values("WWW-Authenticate"))
	for _, c := range challenges {
		fmt.Printf("%s of realm %q\n", c.Scheme, c.Params.Get("realm"))
	}
	fmt.Println(challenges[2])
	fmt.Println(err)
	// Output:
	// Digest of realm "cellar"
	// Basic of realm "cellar"
	// Bearer of realm ""
	// Bearer error="invalid_token", error_description="it is \"old\""
	// authretry: damaged challenge: missing comma at offset 29 of header line 1
}
