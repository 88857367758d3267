package guarded

import "net/netip"

// A kind says what is at an address.
type kind int

const (
	outside  kind = iota // the Internet, for all that is known
	private              // a network of somebody's own: RFC 1918, RFC 4193, and that of carriers (RFC 6598)
	loopback             // this machine
	special              // what no server is at that others may be sent to: metadata services, link-local, multicast, reserved
)

// What the networks are that are not outside, by IANA's registries of special-purpose addresses, and where clouds have
// their metadata. The first that has an address counts.
var networks = []struct {
	prefix netip.Prefix
	kind   kind
}{
	{netip.MustParsePrefix("100.100.100.200/32"), special}, // Alibaba's metadata
	{netip.MustParsePrefix("fd00:100::100:200/128"), special},
	{netip.MustParsePrefix("168.63.129.16/32"), special}, // Azure's
	{netip.MustParsePrefix("192.0.0.192/32"), special},   // Oracle's
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), special},
	{netip.MustParsePrefix("fd00:ec2::/32"), special},         // AWS's
	{netip.MustParsePrefix("fd20:ce::254/128"), special},      // Google's
	{netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"), special}, // Akamai's
	{netip.MustParsePrefix("fd00:42::42/128"), special},       // Scaleway's

	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("::1/128"), loopback},

	{netip.MustParsePrefix("10.0.0.0/8"), private},
	{netip.MustParsePrefix("172.16.0.0/12"), private},
	{netip.MustParsePrefix("192.168.0.0/16"), private},
	{netip.MustParsePrefix("100.64.0.0/10"), private},
	{netip.MustParsePrefix("fc00::/7"), private},
	{netip.MustParsePrefix("fec0::/10"), private},      // RFC 3879
	{netip.MustParsePrefix("64:ff9b:1::/48"), private}, // RFC 8215

	{netip.MustParsePrefix("0.0.0.0/8"), special},
	{netip.MustParsePrefix("169.254.0.0/16"), special},
	{netip.MustParsePrefix("192.0.0.0/24"), special},
	{netip.MustParsePrefix("192.0.2.0/24"), special},
	{netip.MustParsePrefix("198.18.0.0/15"), special},
	{netip.MustParsePrefix("198.51.100.0/24"), special},
	{netip.MustParsePrefix("203.0.113.0/24"), special},
	{netip.MustParsePrefix("224.0.0.0/3"), special}, // multicast, reserved, broadcast
	{netip.MustParsePrefix("::/128"), special},
	{netip.MustParsePrefix("100::/64"), special},
	{netip.MustParsePrefix("2001:db8::/32"), special},
	{netip.MustParsePrefix("3fff::/20"), special},
	{netip.MustParsePrefix("5f00::/16"), special},
	{netip.MustParsePrefix("fe80::/10"), special},
	{netip.MustParsePrefix("ff00::/8"), special},
}

// kindOf returns what is at an address, or at the one that it stands for.
func kindOf(addr netip.Addr) kind {
	if !addr.IsValid() {
		return special
	}
	addr = addr.Unmap().WithZone("")
	worst := outside
	for _, a := range append(embedded(addr), addr) {
		for _, n := range networks {
			if n.prefix.Contains(a) {
				worst = max(worst, n.kind)
				break
			}
		}
	}
	return worst
}

// embedded returns the IPv4 addresses to which gateways may translate an IPv6 address.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	switch {
	case b[0] == 0 && netip.MustParsePrefix("::/96").Contains(addr): // IPv4-compatible (RFC 4291 §2.5.5.1)
		if b[12] == 0 { // ::, ::1
			return nil
		}
		return []netip.Addr{v4(12)}
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr), // NAT64 (RFC 6052)
		netip.MustParsePrefix("::ffff:0:0:0/96").Contains(addr): // IPv4-translated (RFC 2765 §2.1)
		return []netip.Addr{v4(12)}
	case netip.MustParsePrefix("64:ff9b:1::/48").Contains(addr): // of somebody's own (RFC 8215), of any length (RFC 6052 §2.2)
		addrs := []netip.Addr{v4(12)}
		for _, at := range [][4]int{{9, 10, 11, 12}, {7, 9, 10, 11}, {6, 7, 9, 10}} {
			if isZero(b[at[3]+1:]) {
				addrs = append(addrs, netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}))
			}
		}
		return addrs
	case netip.MustParsePrefix("2002::/16").Contains(addr): // 6to4 (RFC 3056)
		return []netip.Addr{v4(2)}
	case netip.MustParsePrefix("2001::/32").Contains(addr): // Teredo (RFC 4380): the server, and the client behind its NAT
		return []netip.Addr{v4(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	if b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP (RFC 5214)
		return []netip.Addr{v4(12)}
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
