package netdrv_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw/hwtest"
)

// pool adds three PFs of two VFs each; the last is on another NUMA node.
func pool(m *machine) {
	for i := range 3 {
		pf := igb()
		pf.Name, pf.PCI, pf.MAC = fmt.Sprintf("ens%df0", i+1), fmt.Sprintf("0000:%02x:00.0", i+1), ""
		pf.TotalVFs, pf.Up, pf.NUMANode, pf.LocalCPUs = 2, true, i/2, []string{"0-3", "4-7"}[i/2]
		m.kernel.AddPF(pf)
	}
	m.settled()
}

// onPF returns how many VFs of a PF are in containers; nth counts from 1.
func (m *machine) onPF(nth int) (n int) {
	for i := range 2 {
		if ns, _, _ := m.kernel.Netdev(fmt.Sprintf("0000:%02x:10.%d", nth, 2*i)); ns != "" {
			n++
		}
	}
	return n
}

// wantOnPFs compares how many containers each PF has.
func (m *machine) wantOnPFs(want ...int) {
	m.t.Helper()
	if got := []int{m.onPF(1), m.onPF(2), m.onPF(3)}; !slices.Equal(got, want) {
		m.t.Errorf("containers per PF: %v, want %v", got, want)
	}
}

// runAll starts a container for each name, with the same options.
func (m *machine) runAll(network string, own map[string]any, containers ...string) {
	m.t.Helper()
	for _, c := range containers {
		if err := m.runWith(c, network, own); err != nil {
			m.t.Fatalf("run %s: %v", c, err)
		}
	}
}

// TestPoolOfPFs: containers are spread over PFs, or packed. If all VFs are in use the error names every holder. All VFs are removed with the
// network.
func TestPoolOfPFs(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0, ens2f0,ens3f0")
		m.runAll("n", nil, "a", "b", "c")
		m.wantOnPFs(1, 1, 1)
		m.end("b")
		m.runAll("n", nil, "d")
		m.wantOnPFs(1, 1, 1)
		m.runAll("n", map[string]any{"policy": "pack"}, "e")
		m.wantOnPFs(2, 1, 1)
		m.runAll("n", nil, "f", "g")
		wantError(t, m.runWith("h", "n", nil), "ens1f0 (0000:01:00.0), ens2f0 (0000:02:00.0), ens3f0 (0000:03:00.0): "+
			"all 6 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
			"vf 0 of ens2f0 (0000:02:10.0) is held by endpoint d-endpoint-0 ("+ipOf("d")+") of network n; "+
			"vf 0 of ens3f0 (0000:03:10.0) is held by endpoint c-endpoint-0 ("+ipOf("c")+") of network n; "+
			"vf 1 of ens1f0 (0000:01:10.2) is held by endpoint e-endpoint-0 ("+ipOf("e")+") of network n; "+
			"vf 1 of ens2f0 (0000:02:10.2) is held by endpoint f-endpoint-0 ("+ipOf("f")+") of network n; "+
			"vf 1 of ens3f0 (0000:03:10.2) is held by endpoint g-endpoint-0 ("+ipOf("g")+") of network n")
		for _, c := range []string{"a", "c", "d", "e", "f", "g"} {
			m.end(c)
		}
		m.mustRemove("n")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestPack: PFs are filled one after the other.
func TestPack(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "policy=pack")
		m.runAll("n", nil, "a", "b", "c")
		m.wantOnPFs(2, 1, 0)
	})
}

// TestNUMA: PFs of the preferred node come first, then the others.
func TestNUMA(t *testing.T) {
	for numa, want := range map[string][]int{"1": {1, 0, 2}, "0": {2, 1, 0}, "auto": {2, 1, 0}, "none": {1, 1, 1}} {
		story(t, func(m *machine) {
			pool(m)
			m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "numa="+numa)
			m.runAll("n", nil, "a", "b", "c")
			m.wantOnPFs(want...)
		})
	}
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "numa=auto")
		m.runAll("n", map[string]any{"numa": "1"}, "a")
		m.runAll("n", nil, "b") // on the node where the network has a container
		m.wantOnPFs(0, 0, 2)
		m.runAll("n", map[string]any{"cores": "0,1"}, "c")
		m.wantOnPFs(1, 0, 2)
		before := m.kernel.String()
		wantError(t, m.create("x", "netdevice=ens1f0,ens2f0", "numa=1"), "option numa: no pf of the network is on node 1: "+
			"ens1f0 (0000:01:00.0) is on node 0, ens2f0 (0000:02:00.0) is on node 0")
		m.wantHost(before)
	})
}

// gpuPool adds the PFs of a machine with two processors: the first and the second are on one root complex, each beside a GPU behind a switch;
// the third, of two ports, is on the other processor, where a GPU is on another root complex.
func gpuPool(m *machine) {
	for i, behind := range []string{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0", "pci0000:10/0000:10:03.0/0000:21:00.0/0000:22:00.0",
		"pci0000:80/0000:80:01.0"} {
		pf := igb()
		pf.Name, pf.PCI, pf.MAC = fmt.Sprintf("ens%df0", i+1), fmt.Sprintf("0000:%02x:00.0", i+1), ""
		pf.TotalVFs, pf.Up, pf.NUMANode, pf.Behind = 2, true, i/2, behind
		m.kernel.AddPF(pf)
	}
	m.kernel.AddGPU("0000:14:00.0", "pci0000:10/0000:10:01.0/0000:11:00.0/0000:13:00.0", "0x030200", 0)
	m.kernel.AddGPU("0000:24:00.0", "pci0000:10/0000:10:03.0/0000:21:00.0/0000:23:00.0", "0x120000", 0)
	m.kernel.AddGPU("0000:a4:00.0", "pci0000:a0/0000:a0:01.0", "0x030200", 1)
	m.settled()
}

// TestNear: PFs come in the order of how near they are to a device: behind the same switch, on the same root complex, on the same NUMA node.
// What a container wants comes before what its network wants, and before the NUMA node.
func TestNear(t *testing.T) {
	for near, want := range map[string][]int{
		"0000:14:00.0": {2, 1, 0}, "24:00.0": {1, 2, 0}, "0000:A4:00.0": {1, 0, 2}, "gpu": {2, 1, 0}, "none": {1, 1, 1},
		"0000:03:00.0": {1, 0, 2}, // another NIC
	} {
		story(t, func(m *machine) {
			gpuPool(m)
			m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "near="+near)
			m.runAll("n", nil, "a", "b", "c")
			m.wantOnPFs(want...)
		})
	}
	story(t, func(m *machine) {
		gpuPool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "near=0000:14:00.0", "numa=1")
		m.runAll("n", nil, "a")
		m.wantOnPFs(1, 0, 0)
		m.runAll("n", map[string]any{"near": "0000:24:00.0"}, "b")
		m.wantOnPFs(1, 1, 0)
		m.runAll("n", map[string]any{"near": "none"}, "c")
		m.wantOnPFs(1, 1, 1)
		wantError(t, m.runWith("d", "n", map[string]any{"near": "0000:ff:00.0"}), "option near: 0000:ff:00.0: no such pci device")
		wantError(t, m.create("x", "netdevice=ens1f0", "near=ff:00.0"), "option near: 0000:ff:00.0: no such pci device")
	})
	story(t, func(m *machine) {
		pool(m)
		wantError(t, m.create("n", "netdevice=ens1f0", "near=gpu"), "option near: this machine has no gpu; give the pci address of a device")
	})
}

// TestUplinkDown: a PF that is up and has no carrier comes last.
func TestUplinkDown(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0")
		m.kernel.Plug("ens1f0", false)
		m.runAll("n", nil, "a", "b")
		m.wantOnPFs(0, 2, 0)
	})
}

// TestSelectPFs: the ways to name PFs, and the names that the operator has given.
func TestSelectPFs(t *testing.T) {
	for netdevice, want := range map[string][]int{
		"ens?f0": {1, 1, 1}, "8086:10c9": {1, 1, 1}, "driver:igb": {1, 1, 1}, "0000:02:00.0,03:00.0": {0, 2, 1},
		"ens[13]f0": {2, 0, 1}, "fabric": {0, 1, 2}, "ens1f0,fabric": {1, 1, 1}, "ens2f0,ens2f0,0000:02:00.0,ens1f0": {1, 2, 0},
	} {
		story(t, func(m *machine) {
			m.devices = map[string][]string{"fabric": {"ens3f0", "0000:02:00.0"}}
			m.kernel.AddVeth("ens4f0", "peer") // matches the pattern, but is no PF
			pool(m)
			m.mustCreate("n", "netdevice="+netdevice)
			m.runAll("n", nil, "a", "b", "c")
			m.wantOnPFs(want...)
		})
	}
}

// TestSelectNamesFew: the error about a device that is not there names at most eight of the host's NICs.
func TestSelectNamesFew(t *testing.T) {
	story(t, func(m *machine) {
		for n := range 10 {
			pf := igb()
			pf.Name, pf.PCI, pf.MAC = fmt.Sprintf("ens%df0", n+1), fmt.Sprintf("0000:%02x:00.0", n+1), ""
			m.kernel.AddPF(pf)
		}
		wantError(t, m.create("n", "netdevice=nosuch0"), "option netdevice: nosuch0: no such device; the NICs of this host are "+
			"ens1f0, ens2f0, ens3f0, ens4f0, ens5f0, ens6f0, ens7f0, ens8f0, and 2 more")
	})
}

// there ends the error about a device that is not there.
const there = "; the NICs of this host are ens1f0, ens2f0, ens3f0, ens9f0"

// TestSelectErrors: a term that selects nothing is an error, and no VFs are left on the PFs of terms before it.
func TestSelectErrors(t *testing.T) {
	story(t, func(m *machine) {
		m.devices = map[string][]string{"fabric": {"ens3f0", "ens2f0"}, "lost": {"ens7f0"}}
		m.kernel.AddVeth("veth0", "veth1")
		pool(m)
		few := igb()
		few.Name, few.PCI, few.MAC, few.TotalVFs = "ens9f0", "0000:09:00.0", "", 1
		m.kernel.AddPF(few)
		before := m.kernel.String()
		for _, c := range []struct{ want, netdevice, more string }{
			{"option netdevice: ens7f0: no such device" + there, "ens1f0,ens7f0", ""},
			{"option netdevice: ens7f0: no such device" + there, "lost", ""},
			{`option netdevice: "ens1f0,," has an empty name in it`, "ens1f0,,", ""},
			{"option netdevice: eno*: nothing on this machine fits it" + there, "eno*", ""},
			{"option netdevice: [: not a pattern of names", "[", ""},
			{"option netdevice: 15b3:1017: nothing on this machine fits it" + there, "15b3:1017", ""},
			{"option netdevice: driver:ice: nothing on this machine fits it" + there, "driver:ice", ""},
			{"option netdevice: veth*: veth1: it is not a PCI device, so it has no vfs; use another mode, such as passthrough", "veth*", ""},
			{"option numvfs: 2 is not possible: ens9f0 (0000:09:00.0) can have 1 vfs", "ens1f0,ens9f0", "numvfs=2"},
			{"option vfs: ens9f0 (0000:09:00.0) has vf 0 to 0, no vf 1", "ens1f0,ens9f0", "vfs=0-1"},
			{"option netdevice: ens3f0, ens2f0 are several devices; only mode=sriov takes more than one", "fabric", "mode=passthrough"},
			{`option numa: "-1" is not allowed; allowed: number of a NUMA node, auto or none`, "ens1f0", "numa=-1"},
			{`option policy: "random" is not allowed; allowed: spread or pack`, "ens1f0", "policy=random"},
		} {
			options := []string{"netdevice=" + c.netdevice}
			if c.more != "" {
				options = append(options, c.more)
			}
			wantError(t, m.create("n", options...), c.want)
			m.settled()
			m.wantHost(before)
			m.wantKeys()
		}
		m.mustCreate("tenant", "netdevice=ens2f0", "vlan=100")
		wantError(t, m.create("n", "netdevice=ens1f0,ens2f0", "vlan=100"),
			"option vlan: 100 is used on ens2f0 (0000:02:00.0) by network tenant; choose another"+left("tenant"))
		m.mustCreate("whole", "netdevice=ens1f0", "mode=passthrough")
		wantError(t, m.create("n", "netdevice=ens2f0,ens1f0"),
			"option netdevice: ens1f0 (0000:01:00.0) is handed over whole by network whole"+left("whole"))
	})
}

// TestPFGoesAndComes: when a PF is unplugged the network loses its VFs and no others, and has them again when it is plugged in.
func TestPFGoesAndComes(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0")
		m.runAll("n", nil, "a", "b")
		m.wantOnPFs(1, 1, 0)
		m.kernel.RemovePF("0000:02:00.0")
		m.runAll("n", nil, "c")
		m.wantOnPFs(2, 0, 0)
		wantError(t, m.runWith("d", "n", nil), "ens1f0 (0000:01:00.0): all 2 vfs are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
			"vf 1 of ens1f0 (0000:01:10.2) is held by endpoint c-endpoint-0 ("+ipOf("c")+") of network n; 0000:02:00.0: no such device")
		m.leave("b") // its device is gone
		m.kernel.KillNS("b", 0)
		m.delete("b")
		pf := igb()
		pf.Name, pf.PCI, pf.TotalVFs, pf.Up = "ens2f0", "0000:02:00.0", 2, true
		m.kernel.AddPF(pf)
		m.after(10 * time.Second)
		m.runAll("n", nil, "d", "e")
		m.wantOnPFs(2, 2, 0)
		for _, c := range []string{"a", "c", "d", "e"} {
			m.end(c)
		}
		m.mustRemove("n")
		m.wantKeys()
		if n := m.kernel.NumVFs("0000:02:00.0"); n != 0 {
			t.Errorf("%d VFs are left on the PF that came back", n)
		}
	})
	story(t, func(m *machine) { // the last one
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0")
		m.kernel.RemovePF("0000:01:00.0")
		wantError(t, m.runWith("a", "n", nil), "network n: 0000:01:00.0: no such device")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestContainerComesBack: a container gets the VF that the last one of its name had, on an engine that gives container names to the IPAM driver.
func TestContainerComesBack(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}}}
		m.must(m.createWith("n", r, "netdevice=ens1f0,ens2f0"))
		m.containerNames = map[string]string{}
		start := func(container, name string) {
			t.Helper()
			m.containerNames[addressOf(container)] = name
			m.mustRun(container, "n")
		}
		start("a", "web")
		start("b", "app.1.0123456789abcdefghijklmno")
		m.wantIn("0000:01:10.0", "a")
		m.wantIn("0000:02:10.0", "b")
		m.end("a")
		m.end("b")
		start("c", "app.1.zzzzzzzzzzzzzzzzzzzzzzzzz") // the task with which the swarm replaces it
		m.wantIn("0000:02:10.0", "c")
		start("d", "web")
		m.wantIn("0000:01:10.0", "d")
		m.end("d")
		start("e", "other") // gets the VF of web, whose affinity is forgotten then
		m.wantIn("0000:01:10.0", "e")
		if n := len(m.keys()); n != 2+2+2*2+1+2+2 { // 2 endpoints, 2 allocations, 2 PFs that are up, a network, 2 names, 2 addresses
			t.Errorf("%d records:\n%s", n, m.ledger())
		}
		m.end("e")
		m.end("c")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestPFsWithoutCable: PFs without carrier are waited for concurrently; otherwise a network of several could never be created.
func TestPFsWithoutCable(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		for i, name := range []string{"ens1f0", "ens2f0", "ens3f0", "ens4f0"} {
			m.kernel.AddPF(hwtest.PF{Name: name, PCI: fmt.Sprintf("0000:%02x:00.0", i+1), TotalVFs: 2, Unplugged: true})
		}
		m.settled()
		m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0,ens4f0")
		m.mustRun("a", "n")
	})
}
