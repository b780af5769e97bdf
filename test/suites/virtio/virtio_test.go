//go:build lab

package virtio

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw/hwtest"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// The guest's NIC.
const (
	pf    = "enp1s0"
	pfPCI = "0000:01:00.0"
	total = 63
)

func TestMain(m *testing.M) {
	if err := Install("plugin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// create is the start of the command that makes a network on the PF.
func create(subnet string, options ...string) []string {
	return append([]string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", subnet, "-o", "netdevice=" + pf}, options...)
}

// host is the state of the host's links as text: names, MACs, whether they are up; and what the PF says of itself.
func host(t *testing.T) string {
	t.Helper()
	return Sh(t, `ip -br link | grep -v "^veth\|^lo" | sed "s/@if[0-9]*//; s/LOWER_UP//; s/UNKNOWN//" | awk '{print $1, $3, $4}' | sort
cd /sys/bus/pci/devices/`+pfPCI+` && cat sriov_numvfs sriov_drivers_autoprobe`)
}

// asBefore checks at the end of a test that the host's links are as they were.
func asBefore(t *testing.T) {
	t.Helper()
	AsBefore(t, func() string { return host(t) })
}

// bound counts the VFs that have a driver.
func bound(t *testing.T) string {
	t.Helper()
	return Sh(t, "ls -d /sys/bus/pci/devices/"+pfPCI+"/virtfn*/driver 2>/dev/null | wc -l")
}

// TestAllVFs: all VFs are made well within the time that the engine gives a plugin, because none is probed before a
// container wants it; containers on the first ones reach each other, and the VFs go with the network.
func TestAllVFs(t *testing.T) {
	asBefore(t)
	start := time.Now()
	Network(t, "all", create("10.1.0.0/16")...)
	took := time.Since(start)
	t.Logf("a network with %d VFs was made in %.1f s", total, took.Seconds())
	if took > 10*time.Second {
		t.Errorf("that is longer than the engine waits")
	}
	if n := Sh(t, "cat /sys/bus/pci/devices/"+pfPCI+"/sriov_numvfs"); n != fmt.Sprint(total) {
		t.Errorf("%s VFs, want %d", n, total)
	}
	if n := bound(t); n != "0" {
		t.Errorf("%s VFs are bound before any container has run", n)
	}
	Container(t, "one1", "--net", "all")
	Container(t, "two2", "--net", "all")
	Container(t, "last", "--network", fmt.Sprintf("name=all,driver-opt=vf=%d", total-1))
	for _, other := range []string{"two2", "last"} {
		Reaches(t, "one1", Address(t, other, "all"), 10*time.Second)
	}
	if n := bound(t); n != "3" {
		t.Errorf("%s VFs are bound for 3 containers", n)
	}
	mac := MAC(t, "one1", "all")
	Docker(t, "rm", "-f", "one1")
	Container(t, "one1", "--net", "all")
	if again := MAC(t, "one1", "all"); again != mac {
		t.Errorf("the VF has %s now, had %s", again, mac)
	}
	Reaches(t, "one1", Address(t, "last", "all"), 10*time.Second)
}

// TestMAC: a PF that cannot set its VFs' MACs is no obstacle to --mac-address: the VF's netdev takes it.
func TestMAC(t *testing.T) {
	asBefore(t)
	Network(t, "few", create("10.1.0.0/24", "-o", "numvfs=4")...)
	Container(t, "one1", "--net", "few", "--mac-address", "02:00:00:00:00:99")
	Container(t, "two2", "--net", "few")
	if got := Exec(t, "one1", "cat", "/sys/class/net/eth0/address"); got != "02:00:00:00:00:99" {
		t.Errorf("in the container: %s", got)
	}
	Reaches(t, "two2", Address(t, "one1", "few"), 10*time.Second)
	Docker(t, "rm", "-f", "one1")
	Within(t, 10*time.Second, func() string {
		link, err := Try("ip", "-o", "link", "show", pf+"v0") // not there while its driver is bound anew
		if err != nil || strings.Contains(link, "02:00:00:00:00:99") || !strings.Contains(link, "state DOWN") {
			return "the VF is left as " + link
		}
		return ""
	})
}

// TestRefused: what the driver can do for no VF is refused when the network is created, and leaves no VFs behind; what is
// asked for one container is refused then.
func TestRefused(t *testing.T) {
	asBefore(t)
	const why = ": driver virtio-pci can set nothing for its vfs"
	for option, attribute := range map[string]string{"vlan=100": "vlan", "trust=yes": "trust", "max_tx_rate=100": "rate"} {
		Refused(t, pf+" ("+pfPCI+"): set "+attribute+why,
			append(append([]string{"network", "create"}, create("10.1.0.0/24", "-o", option)...), "refused")...)
	}
	Network(t, "plain", create("10.1.0.0/24")...)
	Refused(t, pf+" ("+pfPCI+"): set vlan"+why, "run", "--rm", "--network", "name=plain,driver-opt=vlan=5", "lab", "true")
	Docker(t, "run", "--rm", "--net", "plain", "lab", "ip", "link", "show", "eth0")
}

// TestRecord: a record of the NIC is the file that the fake kernel plays, and all is as it was.
func TestRecord(t *testing.T) {
	asBefore(t)
	record, err := Try("./passthroughctl", "record", "--touch", "--yes", pf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := hwtest.DiffCard(t, "virtio", []byte(record)); diff != "" {
		t.Errorf("hw/hwtest/cards/virtio.json is not as the NIC is (-file +nic):\n%s\nthe record:\n%s", diff, record)
	}
}
