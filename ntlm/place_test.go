package ntlm

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// Hosts that only Unicode takes for one, such as that with a Kelvin sign, are two, as they are to the Transport.
func TestPlacesOfHosts(t *testing.T) {
	at := func(host string) place { return placeOf("", &url.URL{Scheme: "https", Host: host}) }
	require.Equal(t, at("kb.test"), at("KB.Test:443"))
	require.NotEqual(t, at("kb.test"), at("\u212ab.test"))
	require.Equal(t, "https://[::1]:8443", at("[::1]:8443").origin())
	require.Equal(t, "https://[::1]", at("[::1]").origin())
}
