package hw_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestStableMAC: the MAC of a VF that has none is valid, the same at every boot, and different from that of any other
// VF of any PF of the machine and, very likely, of the network.
func TestStableMAC(t *testing.T) {
	t.Parallel()
	seen := map[hw.MAC]string{}
	for p := range 64 {
		base := hw.MAC(fmt.Sprintf("52:54:00:aa:00:%02x", p)) // ports of one NIC follow one another
		pf := hw.PF{Netdev: hw.Netdev{Link: hw.Link{Name: "ens1f0", Type: "ether", MAC: base, PermMAC: base}}}
		for vf := range 256 {
			mac := hw.StableMAC(pf, vf)
			a, err := net.ParseMAC(string(mac))
			if err != nil || len(a) != 6 || a[0]&1 != 0 || a[0]&2 == 0 {
				t.Fatalf("vf %d of %s: %q is no local unicast address", vf, base, mac)
			}
			who := fmt.Sprintf("vf %d of %s", vf, base)
			if other, taken := seen[mac]; taken {
				t.Fatalf("%s and %s both have %s", who, other, mac)
			}
			seen[mac] = who

			renamed := pf
			renamed.Name, renamed.MAC = "eth7", "02:00:00:00:00:01" // as after a reboot, or in a bond
			if again := hw.StableMAC(renamed, vf); again != mac {
				t.Fatalf("%s: %s, then %s", who, mac, again)
			}
		}
	}
	drawn := hw.PF{Netdev: hw.Netdev{Link: hw.Link{Type: "ether", MAC: "52:54:00:aa:00:00"}}}
	if mac := hw.StableMAC(drawn, 0); seen[mac] != "vf 0 of 52:54:00:aa:00:00" {
		t.Errorf("without a permanent address: %s", mac)
	}
	for _, l := range []hw.Link{{Type: "infiniband", MAC: "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:a1:b2:c3"},
		{Type: "ether"}} {
		if mac := hw.StableMAC(hw.PF{Netdev: hw.Netdev{Link: l}}, 0); mac != "" {
			t.Errorf("%+v: %s, want none", l, mac)
		}
	}
}
