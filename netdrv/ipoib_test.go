package netdrv_test

import (
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
)

// guid is a hardware address of IP over InfiniBand: queue pair, subnet prefix and port GUID.
const guid = "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:a1:b2:c3"

// ipoib adds a device with IP over InfiniBand.
func ipoib(m *machine) {
	m.kernel.AddLink(hw.Link{Name: "ib0", Type: "infiniband", MAC: guid, MTU: 2044, TxQLen: 256, Up: true})
	m.kernel.AddAddrs("ib0", "192.0.2.20/24")
}

// TestIPoIB: a device without an Ethernet address. Its address must not be answered to the engine, which does not accept it (28.0 to 29.2 fail
// the start), and users cannot choose another.
func TestIPoIB(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		ipoib(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ib0", "mode=passthrough")
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{MacAddress: "02:00:00:00:00:42"})
		wantError(t, err, "mac address 02:00:00:00:00:42: ib0 is an infiniband device, whose address cannot be chosen")
		_, err = m.createEndpoint("a", "n", plugin.EndpointInterface{MacAddress: guid})
		wantError(t, err, "mac address "+guid+": must be six octets, not zero and not a multicast address")
		m.wantKeys("net/n")
		m.wantHost(before)

		for range 2 {
			mac, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: "192.0.2.21/24"})
			if err != nil || mac != "" {
				m.t.Fatalf("answered %q, %v; want no mac", mac, err)
			}
		}
		m.mustRun("a", "n")
		if l := m.kernel.InNS("a").Links()[0]; l.MAC != guid {
			t.Errorf("in the container it has %s", l.MAC)
		}
		mtu := 65520
		m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: mtu}, hw.LinkMTU))
		m.end("a")
		m.wantHost(before)

		wantError(t, m.create("x", "netdevice=ib0"), "option netdevice: ib0: it is not a PCI device, so it has no vfs; use another mode, such as passthrough")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestIPoIBChildComesHome: an IPoIB child is not removed with its container's namespace, which may end long after the engine. It is waited for
// and removed, whatever its name is then.
func TestIPoIBChildComesHome(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{0, 2 * time.Second, 20 * time.Second, 3 * time.Minute} {
		t.Run(late.String(), func(t *testing.T) {
			story(t, func(m *machine) {
				ipoib(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ib0", "mode=ipoib")
				m.mustRun("a", "n")
				name := "mine"
				m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{Name: name}, hw.LinkName))
				m.leave("a")
				m.kernel.KillNS("a", late)
				m.delete("a")
				m.settled()
				m.wantHost(before)
				m.mustRemove("n")
				m.wantKeys()
			})
		})
	}
}
