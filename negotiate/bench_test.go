package negotiate

import "testing"

// What a token costs once there is a ticket.
func BenchmarkToken(b *testing.B) {
	k := newTestKDC(b, testSPN)
	c := k.client("alice")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Token(b.Context(), testSPN); err != nil {
			b.Fatal(err)
		}
	}
}
