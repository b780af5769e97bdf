//go:build lab

package lab

import (
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestIPAMForOthers: our addresses for the engine's own macvlan and ipvlan drivers.
func TestIPAMForOthers(t *testing.T) {
	Sh(t, "modprobe dummy numdummies=0") // older kernels make one of themselves
	asBefore(t)
	Sh(t, "ip link set "+another+" up")
	t.Cleanup(func() { Sh(t, "ip link set "+another+" down") })
	// The same subnet, which Docker's own IPAM refuses.
	for n, driver := range map[string]string{"left": "macvlan", "right": "ipvlan"} {
		Sh(t, "ip link add "+n+"0 type dummy && ip link set "+n+"0 up")
		t.Cleanup(func() { Sh(t, "ip link del "+n+"0") })
		Network(t, n, "-d", driver, "-o", "parent="+n+"0", "--ipam-driver", Plugin, "--subnet", "10.8.0.0/24")
		Container(t, n+"1", "--net", n)
		Container(t, n+"2", "--net", n)
		Reaches(t, n+"1", Address(t, n+"2", n), 5*time.Second)
		if a, b := Address(t, n+"1", n), Address(t, n+"2", n); a == b {
			t.Errorf("both have %s", a)
		}
	}
}
