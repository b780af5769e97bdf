package netdrv_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestWhichVF: the option vf takes an index, 0 included, a PCI address, a MAC or a name.
func TestWhichVF(t *testing.T) {
	for name, pci := range map[string]string{
		"0": "0000:01:10.0", "5": "0000:01:11.2", "0000:01:10.4": "0000:01:10.4", "01:10.6": "0000:01:10.6",
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0")
				if err := m.runWith("a", "n", map[string]any{"vf": name}); err != nil {
					t.Fatal(err)
				}
				if ns, _, _ := m.kernel.Netdev(pci); ns != "a" {
					t.Errorf("%s is in %q, want it in a", pci, ns)
				}
				m.end("a")
			})
		})
	}
	story(t, func(m *machine) { // by netdev name and MAC, which only a VF with a driver has
		able(m)
		m.mustCreate("n", "netdevice=ens1f0")
		if err := m.runWith("a", "n", map[string]any{"vf": "ens1f0v1"}); err != nil {
			t.Fatal(err)
		}
		if ns, _, _ := m.kernel.Netdev("0000:01:10.2"); ns != "a" {
			t.Errorf("vf 1 is in %q, want it in a", ns)
		}
		wantError(t, m.runWith("b", "n", map[string]any{"vf": "1"}), "ens1f0 (0000:01:00.0): option vf=1 is not free: "+
			"vf 1 of ens1f0 (0000:01:10.2) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		wantError(t, m.runWith("b", "n", map[string]any{"vf": "7"}),
			`option vf: "7" is none of the vfs that this network has on ens1f0 (0000:01:00.0)`)
		_, l, _ := m.kernel.Netdev("0000:01:10.0")
		if err := m.runWith("b", "n", map[string]any{"vf": string(l.MAC)}); err != nil {
			t.Error(err)
		}
		m.end("a")
		m.end("b")
	})
}

// TestNetworksSplitPF: each network uses the VFs of its option vfs.
func TestNetworksSplitPF(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		wantError(t, m.create("x", "netdevice=ens1f0", "vfs=0-3,9"), "option vfs: ens1f0 (0000:01:00.0) has vf 0 to 6, no vf 9")
		m.wantHost(before)
		wantError(t, m.create("x", "netdevice=ens1f0", "vfs=3-1"),
			`option vfs: "3-1" is not allowed; allowed: indexes and ranges of VFs, such as 0-3,7`)
		m.mustCreate("left", "netdevice=ens1f0", "vfs=0,6")
		m.mustCreate("right", "netdevice=ens1f0", "vfs=1-5")
		m.mustRun("a", "left")
		m.mustRun("b", "left")
		m.mustRun("c", "right")
		for container, pci := range map[string]string{"a": "0000:01:10.0", "b": "0000:01:11.4", "c": "0000:01:10.2"} {
			if ns, _, _ := m.kernel.Netdev(pci); ns != container {
				t.Errorf("%s is in %q, want it in %s", pci, ns, container)
			}
		}
		_, _, err := m.run("d", "left")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 2 vfs of the network are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network left; "+
			"vf 6 of ens1f0 (0000:01:11.4) is held by endpoint b-endpoint-0 ("+ipOf("b")+") of network left")
		wantError(t, m.runWith("d", "left", map[string]any{"vf": "ens1f0v0"}), "ens1f0 (0000:01:00.0): option vf=ens1f0v0 is not free: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network left")
		wantError(t, m.runWith("d", "right", map[string]any{"vf": "6"}),
			`option vf: "6" is none of the vfs that this network has on ens1f0 (0000:01:00.0)`)
		for _, c := range []string{"a", "b", "c"} {
			m.end(c)
		}
	})
}

// TestSticky: a container that comes again with its identity key, MAC or address gets its former VF, if that is free.
func TestSticky(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		in := func(pci, container string) {
			t.Helper()
			if ns, _, _ := m.kernel.Netdev(pci); ns != container {
				t.Errorf("%s is in %q, want it in %q", pci, ns, container)
			}
		}
		run := func(container string, own map[string]any) {
			t.Helper()
			if err := m.runWith(container, "n", own); err != nil {
				t.Fatal(err)
			}
		}
		run("a", nil)
		run("db", map[string]any{"sticky": "Database / 1"})
		run("mac", map[string]any{"mac": "02:00:00:00:00:99"})
		m.mustRun("address", "n")
		in("0000:01:10.2", "db")
		in("0000:01:10.4", "mac")
		in("0000:01:10.6", "address")
		for _, c := range []string{"a", "db", "mac", "address"} {
			m.end(c)
		}
		m.restart()
		m.mustRun("address", "n")
		in("0000:01:10.6", "address")
		run("mac2", map[string]any{"mac": "02:00:00:00:00:99"})
		run("db2", map[string]any{"sticky": "Database / 1"})
		in("0000:01:10.4", "mac2")
		in("0000:01:10.2", "db2")
		m.end("db2")
		run("thief", map[string]any{"vf": "1"})
		run("db3", map[string]any{"sticky": "Database / 1"}) // another, as its former one is in use
		in("0000:01:10.0", "db3")
		for _, c := range []string{"mac2", "thief", "db3", "address"} {
			m.end(c)
		}
		m.mustRemove("n")
		if keys := m.keys(); len(keys) > 0 {
			t.Errorf("left in the ledger: %v", keys)
		}
	})
}

// TestStickyWithoutCarrier: an implicit affinity does not select a VF of a PF without carrier; the option sticky does.
func TestStickyWithoutCarrier(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		plug := func(cable bool) func(m *machine) {
			return func(m *machine) {
				m.kernel.AddPF(hwtest.PF{Name: "ens1f0", PCI: pfPCI, Up: true, TotalVFs: 2, VFs: 2, Unplugged: !cable})
				m.kernel.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", Up: true, TotalVFs: 2, VFs: 2})
			}
		}
		plug(true)(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0")
		again := func(own map[string]any, want string) {
			t.Helper()
			m.must(m.runWith("a", "n", own))
			m.wantIn(want, "a")
			m.end("a")
		}
		wanted := map[string]any{"sticky": "Database"}
		again(wanted, "0000:01:10.0")
		again(nil, "0000:01:10.0") // last: only the last implicit affinity of a VF is kept
		m.reboot(plug(false))
		again(nil, "0000:02:10.0")
		again(wanted, "0000:01:10.0")
		m.reboot(plug(true))
		again(nil, "0000:02:10.0") // the VF whose MAC the neighbours have for its address
	})
}

// TestStickyMadeUp: MACs that the engine generates for each start (setting REQUIRE_MAC) do not accumulate in the ledger.
func TestStickyMadeUp(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vfs=0")
		for start := range 4 {
			m.mustRun("a", "n", fmt.Sprintf("02:00:00:00:00:%02x", 0x3c+start))
			m.end("a")
		}
		m.wantKeys("net/n", "pf/0000:01:00.0", "sticky/n/"+hex.EncodeToString([]byte("02:00:00:00:00:3f")))
	})
}
