package netdrv_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestChosenMACGoesBack: a VF does not keep a MAC that the user chose for a container. In the host it would be a second device with that
// address as soon as another VF has it.
func TestChosenMACGoesBack(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		states := m.vfStates("ens1f0")
		own := states[0].MAC
		const chosen = "02:00:00:00:00:42"
		m.mustRun("a", "n", chosen)
		m.end("a")
		_, l, ok := m.kernel.Netdev("0000:01:10.0")
		if !ok || l.MAC != own {
			t.Errorf("in the host it has %s, want %s", l.MAC, own)
		}
		m.mustRun("b", "n")
		m.mustRun("c", "n", chosen)
		for container, want := range map[string]string{"b": string(own), "c": chosen} {
			if l := m.kernel.InNS(container).Links()[0]; string(l.MAC) != want {
				t.Errorf("%s has %s, want %s", container, l.MAC, want)
			}
		}
		m.end("b")
		m.end("c")
	})
}

// TestMACOfOtherFunction: a container cannot have the MAC of the PF, of a VF that the network does not use, of one that another container
// has by the side of the PF, nor one that a VF gets back when its container ends.
func TestMACOfOtherFunction(t *testing.T) {
	t.Parallel()
	const vm, chosen = "02:aa:aa:aa:aa:02", "02:00:00:00:00:42"
	story(t, func(m *machine) {
		pfWithVFs(m, 4)
		pf := string(m.kernel.Link("ens1f0").MAC)
		m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 3, hw.VFMAC, hw.VFState{MAC: vm})) // a virtual machine's
		m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 0, hw.VFMAC, hw.VFState{MAC: "02:aa:aa:aa:aa:00"}))
		m.mustCreate("n", "netdevice=ens1f0", "vfs=0-2")
		m.mustCreate("children", "netdevice=ens1f0", "mode=macvlan")
		wantRefused := func(network, mac, want string) {
			t.Helper()
			before := m.ledger()
			_, _, err := m.run("x", network, mac)
			wantError(t, err, "mac address "+mac+": "+want)
			if now := m.ledger(); now != before {
				t.Errorf("the ledger has changed:\n%s\nwas\n%s", now, before)
			}
		}
		const vf3 = "vf 3 of ens1f0 (0000:01:10.6) has it"
		wantRefused("n", pf, "ens1f0 (0000:01:00.0) has it")
		wantRefused("n", vm, vf3)
		wantRefused("children", vm, vf3)
		wantRefused("children", pf, "ens1f0 has it")
		m.mustRun("a", "n", chosen)
		heldByA := "vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 (" + ipOf("a") + ") of network n"
		wantRefused("n", "02:aa:aa:aa:aa:00", heldByA)
		wantRefused("children", chosen, heldByA)
		m.mustRun("b", "children", "02:00:00:00:00:43")
		wantRefused("n", "02:00:00:00:00:43", "macvlan on ens1f0 is held by endpoint b-endpoint-0 ("+ipOf("b")+") of network children")
		m.end("a")
		m.mustRun("c", "n", "02:aa:aa:aa:aa:00") // its own VF again
		m.wantIn("0000:01:10.0", "c")
	})
}

// TestMACOfWholeDevice: a PF that is handed over whole cannot have the MAC of one of its VFs.
func TestMACOfWholeDevice(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pfWithVFs(m, 2)
		m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 1, hw.VFMAC, hw.VFState{MAC: "02:aa:aa:aa:aa:01"}))
		m.mustCreate("n", "netdevice=ens1f0", "mode=passthrough", "force=yes")
		_, _, err := m.run("a", "n", "02:aa:aa:aa:aa:01")
		wantError(t, err, "mac address 02:aa:aa:aa:aa:01: vf 1 of ens1f0 (0000:01:10.2) has it")
		m.mustRun("a", "n", string(m.kernel.Link("ens1f0").MAC))
	})
}

// TestMACOfVFInUse: a MAC that a VF has again when its container ends cannot be given to another VF meanwhile.
func TestMACOfVFInUse(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=3")
		own := string(m.vfStates("ens1f0")[0].MAC)
		m.must(m.runWith("a", "n", map[string]any{"vf": "2"}))
		m.must(m.runWith("b", "n", map[string]any{"vf": "0", "mac": "02:00:00:00:00:42"}))
		m.end("a")
		err := m.runWith("c", "n", map[string]any{"vf": "2", "mac": own})
		wantError(t, err, "mac address "+own+": vf 0 of ens1f0 (0000:01:10.0) is held by endpoint b-endpoint-0 ("+ipOf("b")+") of network n")
	})
}
