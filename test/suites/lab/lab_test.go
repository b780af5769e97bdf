//go:build lab

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// another is the guest's second NIC. For the first one, pf and pfPCI, see hardware_test.go.
const another = "enp2s0"

func TestMain(m *testing.M) {
	if err := Install("plugin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// sriov makes a network on the PF.
func sriov(t *testing.T, name, subnet string, options ...string) {
	t.Helper()
	args := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", subnet, "-o", "netdevice=" + pf}
	Network(t, name, append(args, few(options)...)...)
}

// asBefore checks, when the test ends and after everything it started has been removed, that the host's devices are as
// they were: names, states, addresses, MTU and MAC, VF count and what the PF has set for its VFs.
func asBefore(t *testing.T) {
	t.Helper()
	AsBefore(t, func() string { return host(t) })
}

// host is the state of the host's devices as text. The alternative names that udev makes of MACs are left out: they come
// whenever a driver is bound to a VF that has been given one. So is the MAC that a PF reports for a VF: igb on Linux 6.1
// reports none for a VF that has drawn one itself, until that sets it; the netdevs' own MACs are there.
func host(t *testing.T) string {
	return Sh(t, `ip -o link | sed 's/^[0-9]*: //; s/qdisc [a-z_]*//; s/state [A-Z]*//; s/qlen [0-9]*//; s/NO-CARRIER,//; s/,LOWER_UP//; s/ *altname enx[0-9a-f]*//; s/ permaddr [0-9a-f:]*//; s/\(vf [0-9]* *\)link.ether [0-9a-f:]* brd [0-9a-f:]*/\1/g; s/[\\ ]*$//' | grep -v "^veth\|^lo" | sort
ip -o addr show scope global | awk '{print $2, $4}' | sort
for f in /sys/bus/pci/devices/*/sriov_numvfs /sys/bus/pci/devices/*/sriov_drivers_autoprobe; do echo $f $(cat $f); done`)
}

// vfLine is what the PF says of the VF that has the MAC: "vf 0 link/ether 02:.. vlan 100, spoof checking on, ...".
func vfLine(t *testing.T, mac string) string {
	t.Helper()
	for _, l := range strings.Split(Run(t, "ip", "link", "show", pf), "\n") {
		if strings.Contains(l, "link/ether "+mac) && strings.Contains(l, "vf ") {
			return strings.TrimSpace(l)
		}
	}
	t.Fatalf("no vf of %s has %s:\n%s", pf, mac, Run(t, "ip", "link", "show", pf))
	return ""
}

// released waits until the first n VFs of the PF are back in the host under their names: docker rm does not wait for it.
func released(t *testing.T, n int) {
	t.Helper()
	Within(t, 10*time.Second, func() string {
		for i := range n {
			if _, err := Try("ip", "link", "show", fmt.Sprintf("%sv%d", pf, i)); err != nil {
				return err.Error()
			}
		}
		return ""
	})
}

// lent is how many VFs of the PF are not in the host.
func lent(t *testing.T) string {
	return Sh(t, `n=0; for f in /sys/bus/pci/devices/`+pfPCI+`/virtfn*; do
[ -e $f/driver ] && [ -z "$(ls $f/net 2>/dev/null)" ] && n=$((n+1)); done; echo $n`)
}
