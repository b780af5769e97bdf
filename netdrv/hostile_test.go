package netdrv_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestHostileContainer: a container renames its device, changes its MAC and flags, and gives it the alias and the names of others. It is
// killed, so that the kernel brings the device home as it is. A VF and a whole NIC are found and restored all the same, and no other
// device changes, such as the one whose name and alias were taken.
func TestHostileContainer(t *testing.T) {
	for _, network := range []string{"vfs", "whole"} {
		t.Run(network, func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs = true, 2
				m.kernel.AddPF(pf)
				nic(m)
				m.kernel.AddVeth("tap0", "tap1")
				m.settled()
				m.kernel.GiveAltName("ens1f0", "enp1s0f0np0")
				for _, name := range []string{"ens1f0v0", "ens2"} {
					m.kernel.GiveAltName(name, name+"-of-the-host")
				}
				before := m.kernel.String()
				m.mustCreate("vfs", "netdevice=ens1f0", "privileged=yes")
				m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
				m.mustCreate("tap", "netdevice=tap0", "mode=passthrough")
				m.mustRun("victim", "tap")
				forged := aliasIn(m, "victim")
				m.mustRun("bad", network)
				bad := m.kernel.InNS("bad")
				m.must(bad.SetLink("eth0", hw.Link{Name: "tap0", Alias: forged, MAC: "02:66:66:66:66:66", MTU: 9000, Promisc: true,
					AllMulti: true, NoARP: true, NoMulticast: true}, hw.LinkMTU, hw.LinkPromisc, hw.LinkAllMulti, hw.LinkMAC,
					hw.LinkAlias, hw.LinkNoARP, hw.LinkNoMulticast, hw.LinkName))
				for _, l := range bad.Links() {
					if len(l.AltNames) > 0 {
						t.Errorf("the container sees the host's names %v", l.AltNames)
					}
				}
				for _, alt := range []string{"ens5f0", "ens1f0v7", "enp1s0f0v00", "enx0266666666"} {
					bad.GiveAltName("tap0", alt)
				}
				m.leave("bad")
				m.kernel.KillNS("bad", 0)
				m.delete("bad")
				m.settled()
				if ns, l, ok := m.kernel.Netdev("0000:01:10.0"); network == "vfs" && (!ok || ns != "" || l.Name != "ens1f0v0") {
					t.Errorf("the vf is %+v in %q", l, ns)
				}
				m.end("victim")
				for _, n := range []string{"vfs", "whole", "tap"} {
					m.mustRemove(n)
				}
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// aliasIn returns the alias of a container's only device besides lo.
func aliasIn(m *machine, container string) string {
	m.t.Helper()
	for _, l := range m.kernel.InNS(container).Links() {
		if l.Name != "lo" {
			return l.Alias
		}
	}
	m.t.Fatalf("%s has no device", container)
	return ""
}
