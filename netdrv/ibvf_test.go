package netdrv_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw/hwtest"
)

// hca is a PF with IP over InfiniBand. It is modelled on the kernel's sources only: no hardware, not even an emulated one, was available.
func hca() hwtest.PF {
	return hwtest.PF{Name: "ib0", PCI: "0000:01:00.0", Up: true, TotalVFs: 4, Driver: "mlx5_core", VFDriver: "mlx5_core",
		Vendor: "0x15b3", Device: "0x1017", VFDevice: "0x1018", VFOffset: 1, VFStride: 1, Behaviour: hwtest.IPoIB(),
		ProbeTakes: 200 * time.Millisecond, VFCarrierAfter: time.Second}
}

// vfGUIDs returns a VF's node GUID, port GUID and link state, as its PF reports them.
func (m *machine) vfGUIDs(vf int) string {
	m.t.Helper()
	states := m.vfStates("ib0")
	return fmt.Sprint(states[vf].NodeGUID, " ", states[vf].PortGUID, " ", states[vf].LinkMode)
}

// TestInfiniBandVF: a VF gets a GUID, and its port follows the PF's and is active when the container gets it. Afterwards it is as before. No
// MAC is answered to the engine.
func TestInfiniBandVF(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(hca())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ib0")
		made := m.vfGUIDs(0)
		if !strings.HasPrefix(made, "02:") || !strings.HasSuffix(made, " disable") || made == m.vfGUIDs(1) {
			t.Errorf("vf 0 is made with %s, vf 1 with %s", made, m.vfGUIDs(1))
		}
		for range 2 {
			_, mac := m.mustRun("a", "n")
			own := strings.TrimSuffix(made, " disable")
			l := m.kernel.InNS("a").Links()[0]
			if mac != "" || m.vfGUIDs(0) != own+" auto" || !strings.HasSuffix(string(l.MAC), own[24:]) || !l.Carrier {
				t.Errorf("answered %q; the pf says %s; in the container: %+v", mac, m.vfGUIDs(0), l)
			}
			m.end("a")
			if now := m.vfGUIDs(0); now != made {
				t.Errorf("it is restored to %s, and had %s", now, made)
			}
		}
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestGUID: a user's GUID is set for node and port, cannot be used twice, and is removed afterwards, also from a VF that had none.
func TestGUID(t *testing.T) {
	const guid = "02:00:00:00:00:00:AB:01"
	story(t, func(m *machine) {
		pf := hca()
		pf.VFs = 2
		m.kernel.AddPF(pf)
		m.settled()
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ib0", "link_state=enable")
		m.must(m.runWith("a", "n", map[string]any{"guid": guid}))
		if now := m.vfGUIDs(0); now != strings.ToLower(guid+" "+guid+" enable") {
			t.Errorf("vf 0 has %s", now)
		}
		if l := m.kernel.InNS("a").Links()[0]; !strings.HasSuffix(string(l.MAC), strings.ToLower(guid)) {
			t.Errorf("in the container: %+v", l)
		}
		wantError(t, m.runWith("b", "n", map[string]any{"guid": strings.ToLower(guid)}), "option guid: 02:00:00:00:00:00:ab:01: "+
			"vf 0 of ib0 (0000:01:00.1) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		for _, bad := range []string{"02:00:00:00:00:01", "00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "x"} {
			wantError(t, m.runWith("b", "n", map[string]any{"guid": bad}),
				fmt.Sprintf("option guid: %q is not allowed; allowed: eight octets, not all zero, not all ones", bad))
		}
		m.end("a")
		m.mustRemove("n")
		if now := m.vfGUIDs(0); now != "  disable" {
			t.Errorf("vf 0 is left with %s", now)
		}
		// The queue pair in its address changes with each binding.
		if after := withoutIPoIB(m.kernel.String()); after != withoutIPoIB(before) {
			t.Errorf("the host is\n%s\nbut was\n%s", after, withoutIPoIB(before))
		}
	})
}

// withoutIPoIB removes the queue pair from IPoIB addresses.
func withoutIPoIB(host string) string {
	var lines []string
	for _, l := range strings.Split(host, "\n") {
		if i := strings.Index(l, "mac 00:00:"); i >= 0 && strings.Contains(l, ":fe:80:") {
			l = l[:i+len("mac 00:00:")] + "??:??" + l[i+len("mac 00:00:??:??"):]
		}
		lines = append(lines, l)
	}
	return strings.Join(lines, "\n")
}

// TestEthernetOfInfiniBand: options for Ethernet are refused on InfiniBand, and the reverse.
func TestEthernetOfInfiniBand(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(hca())
		before := m.kernel.String()
		const no = ": it is an infiniband device, whose vfs have none"
		for option, attribute := range map[string]string{"vlan=100": "vlan", "spoofchk=on": "spoofchk", "trust=no": "trust",
			"max_tx_rate=10": "rate"} {
			wantError(t, m.create("n", "netdevice=ib0", option), "ib0 (0000:01:00.0): set "+attribute+no)
		}
		m.wantHost(before)
		m.wantKeys()
		m.mustCreate("n", "netdevice=ib0")
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{MacAddress: "02:00:00:00:00:42"})
		wantError(t, err, "ib0 (0000:01:00.0): set mac"+no)
		wantError(t, m.runWith("a", "n", map[string]any{"vlan": "7"}), "ib0 (0000:01:00.0): set vlan"+no)
		m.mustRemove("n")
		m.wantHost(before)
	})
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		wantError(t, m.runWith("a", "n", map[string]any{"guid": "02:00:00:00:00:00:00:01"}), "ens1f0 (0000:01:00.0): set node_guid: "+
			"only vfs of an infiniband device have one")
	})
}

// TestSubnetManager: without one no port is ever active, and no container gets a VF. The VF is not faulty, and is not quarantined.
func TestSubnetManager(t *testing.T) {
	story(t, func(m *machine) {
		pf := hca()
		pf.SubnetManager = false
		m.kernel.AddPF(pf)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ib0")
		made := m.vfGUIDs(0)
		_, _, err := m.run("a", "n")
		wantError(t, err, "ib0 (0000:01:00.0): port 1 of mlx5_0 is init, not active; is it cabled, and is a subnet manager running?")
		m.settled()
		if now := m.vfGUIDs(0); now != made {
			t.Errorf("vf 0 is left with %s, had %s", now, made)
		}
		m.wantKeys("net/n", "pf/0000:01:00.0")
		m.mustRemove("n")
		m.wantHost(before)
	})
	story(t, func(m *machine) {
		pf := hca()
		pf.VFCarrierAfter = time.Hour
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ib0")
		_, _, err := m.run("a", "n")
		wantError(t, err, "vf 0 of ib0 (0000:01:00.1): port 1 of mlx5_1 is init, not active; is a subnet manager running, and does it "+
			"serve virtual ports (opensm: virt_enabled 2)?")
	})
	story(t, func(m *machine) { // with link_state=disable the port is not waited for
		pf := hca()
		pf.SubnetManager = false
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ib0", "link_state=disable")
		m.mustRun("a", "n")
		m.end("a")
	})
}

// TestInfiniBandTree: the vendor's driver sets GUIDs and policy through files below the PF. rtnetlink may report nothing about its VFs.
func TestInfiniBandTree(t *testing.T) {
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute=%t", mute), func(t *testing.T) { infiniBandTree(t, mute) })
	}
}

func infiniBandTree(t *testing.T, mute bool) {
	const guid = "02:00:00:00:00:00:AB:02"
	story(t, func(m *machine) {
		pf := hca()
		pf.Behaviour = hwtest.IPoIBVendorTree()
		pf.ReportsVFs = !mute
		m.kernel.AddPF(pf)
		before := m.kernel.String()
		file := func(name string) string {
			t.Helper()
			b, err := fs.ReadFile(m.kernel.Sys, "bus/pci/devices/0000:01:00.0/sriov/0/"+name)
			m.must(err)
			return string(bytes.TrimSpace(b))
		}
		m.mustCreate("n", "netdevice=ib0")
		own := file("port")
		if !strings.HasPrefix(own, "02:") || file("node") != own || file("policy") != "Down" {
			t.Errorf("vf 0 is made with node %s, port %s, policy %s", file("node"), own, file("policy"))
		}
		m.must(m.runWith("a", "n", map[string]any{"guid": guid, "link_state": "enable"}))
		want := strings.ToLower(guid)
		if file("port") != want || file("node") != want || file("policy") != "Up" {
			t.Errorf("vf 0 has node %s, port %s, policy %s; want %s and Up", file("node"), file("port"), file("policy"), want)
		}
		if l := m.kernel.InNS("a").Links()[0]; !strings.HasSuffix(string(l.MAC), want) || !l.Carrier {
			t.Errorf("in the container: %+v", l)
		}
		m.end("a")
		if file("port") != own || file("node") != own || file("policy") != "Down" {
			t.Errorf("vf 0 is left with node %s, port %s, policy %s", file("node"), file("port"), file("policy"))
		}
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}
