package netdrv_test

import (
	"strings"
	"syscall"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/store"
)

// pfWithVFs adds a PF whose VFs an administrator has created and bound.
func pfWithVFs(m *machine, vfs int) {
	pf := igb()
	pf.Up, pf.VFs = true, vfs
	m.kernel.AddPF(pf)
	m.settled()
}

// tag sets the VLAN of a VF of ens1f0 as an administrator does.
func (m *machine) tag(vf, vlan int) {
	m.t.Helper()
	m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, vf, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: vlan}}))
}

// wantVLANs compares the VLANs of the VFs of ens1f0.
func (m *machine) wantVLANs(want ...int) {
	m.t.Helper()
	states := m.vfStates("ens1f0")
	for vf, vlan := range want {
		if states[vf].VLAN.ID != vlan {
			m.t.Errorf("vf %d has vlan %d, want %d", vf, states[vf].VLAN.ID, vlan)
		}
	}
}

// TestNoVLANInherited: the ledger is lost while a container has a VF with a VLAN, so the VF keeps it and is not restored. A network
// without a VLAN that gets the VF is untagged all the same: it must not reach the network that has that VLAN next.
func TestNoVLANInherited(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("customer1", "netdevice=ens1f0", "vlan=100")
		m.mustRun("u1", "customer1")
		m.stop()
		m.store = store.NewMemory()
		m.start(m.store)
		m.mustCreate("plain", "netdevice=ens1f0")
		m.kernel.KillNS("u1", 0)
		m.settled()
		m.wantVLANs(100, 0)
		_, l, _ := m.kernel.Netdev("0000:01:10.0")
		m.must(m.kernel.SetLink(l.Index, hw.LinkUp, hw.Link{}))
		m.mustCreate("tenant100", "netdevice=ens1f0", "vlan=100")
		m.mustRun("a1", "plain")
		m.mustRun("t1", "tenant100")
		m.mustRun("a2", "plain")
		m.wantVLANs(0, 100, 0)
		for vf, container := range map[string]string{"0000:01:10.0": "a1", "0000:01:10.2": "t1", "0000:01:10.4": "a2"} {
			m.wantIn(vf, container)
		}
	})
}

// TestVLANOfAdministrator: vlan=keep leaves the VLAN that an administrator has set for a VF. Without it the VF is untagged for its container,
// and has the VLAN again afterwards.
func TestVLANOfAdministrator(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pfWithVFs(m, 2)
		m.tag(0, 30)
		before := m.kernel.String()
		logged := m.logTo(zapcore.WarnLevel)
		m.mustCreate("plain", "netdevice=ens1f0")
		m.mustRun("a", "plain")
		m.wantVLANs(0, 0)
		const warning = "vf has a vlan that its network did not ask for; it is untagged for its container, see vlan=keep"
		if all := logged.FilterMessage(warning).All(); len(all) != 1 || all[0].ContextMap()["vlan"] != "30" {
			t.Errorf("the log has %v", all)
		}
		m.end("a")
		m.wantHost(before)
		m.mustRemove("plain")
		m.mustCreate("kept", "netdevice=ens1f0", "vlan=Keep", "vfs=0")
		m.mustRun("b", "kept")
		m.wantVLANs(30, 0)
		m.end("b")
		m.wantHost(before)
		m.must(m.runWith("c", "kept", map[string]any{"vlan": "7"})) // one that asks for another
		m.wantVLANs(7, 0)
		m.end("c")
		m.wantHost(before)
	})
}

// TestKeptVLANOfOther: vlan=keep does not give a container the VLAN of another network, nor one that a container of another network has.
func TestKeptVLANOfOther(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pfWithVFs(m, 4)
		m.tag(1, 100)
		m.tag(2, 200)
		m.tag(3, 300)
		m.mustCreate("tenant", "netdevice=ens1f0", "vlan=100", "vfs=0")
		m.mustCreate("open", "netdevice=ens1f0", "vfs=0")
		m.mustCreate("kept", "netdevice=ens1f0", "vlan=keep", "vfs=1-3")
		m.must(m.runWith("o", "open", map[string]any{"vlan": "200"}))
		m.mustRun("a", "kept")
		m.wantIn("0000:01:10.6", "a") // vf 3
		_, _, err := m.run("b", "kept")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 3 vfs of the network are in use: "+
			"vf 1 of ens1f0 (0000:01:10.2) has the vlan of network tenant, 100; "+
			"vf 2 of ens1f0 (0000:01:10.4) has the vlan of network open, 200; "+
			"vf 3 of ens1f0 (0000:01:10.6) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network kept")
		m.end("a")
		m.end("o")
		m.wantVLANs(0, 100, 200, 300)
	})
}

// TestNoVLANNeedsNoDriver: a VF that has no VLAN needs none to be set: its PF's driver may have no operation for it.
func TestNoVLANNeedsNoDriver(t *testing.T) {
	t.Parallel()
	for _, make := range hwtest.Makes(t) {
		t.Run(make.Name, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(make.PF)
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
				m.mustCreate("zero", "netdevice=ens1f0", "vlan=0")
				m.mustRun("a", "n")
				m.mustRun("b", "zero")
				for _, call := range m.kernel.Calls() {
					if strings.Contains(call, "set vlan") {
						t.Errorf("asked: %s", call)
					}
				}
				m.end("a")
				m.end("b")
			})
		})
	}
}

// TestVLANOfUnrecordedNetwork: a container has its VLAN alone also if the record of its network was lost. That there is no record is no evidence
// that the container has ended.
func TestVLANOfUnrecordedNetwork(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.mustRun("a", "n")
		record, err := m.store.Get(m.ctx, "net/n")
		m.must(err)
		_, err = m.store.Txn(m.ctx, nil, []store.Op{store.Del("net/n")})
		m.must(err)
		const held = "option vlan: 100 is used on ens1f0 (0000:01:00.0): "
		if err := m.create("two", "netdevice=ens1f0", "vlan=100"); err == nil || !strings.HasPrefix(err.Error(), held) {
			t.Errorf("a network with the vlan of the container: %v, want %s...", err, held)
		}
		_, err = m.store.Txn(m.ctx, nil, []store.Op{store.Put("net/n", record.Value)})
		m.must(err)
		m.end("a")
	})
}

// TestVLANCannotBeRemoved: a VF with a VLAN whose driver cannot change it is given to no container of a network without one.
func TestVLANCannotBeRemoved(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pfWithVFs(m, 1)
		m.tag(0, 30)
		m.mustCreate("n", "netdevice=ens1f0")
		m.kernel.OnCall(refuse("set vlan 0"))
		ctx, cancel := m.call()
		defer cancel()
		_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("a")})
		wantError(t, err, "vf 0 of ens1f0 (0000:01:10.0): set vlan 0 with igb: not supported by the driver (operation not supported)")
		m.settled()
		m.wantVLANs(30)
		m.wantKeys("net/n")
	})
}

// refuse makes calls that contain a text fail with EOPNOTSUPP.
func refuse(text string) func(int, string) error {
	return func(_ int, what string) error {
		if strings.Contains(what, text) {
			return syscall.EOPNOTSUPP
		}
		return nil
	}
}

// TestVFIsQuietInHost: a VF is tested, and its interrupts are found, while it is up in the host in the VLAN of its container. The host does
// not take part in that VLAN meanwhile: it hears no router and answers no ARP. The VF has its MTU and its flags in the container.
func TestVFIsQuietInHost(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "cores=1-2", "mtu=1400")
		m.mustRun("a", "n")
		if heard := m.kernel.Heard(); len(heard) > 0 {
			t.Errorf("the host took part in the container's vlan: %q", heard)
		}
		if l := m.kernel.InNS("a").Links()[0]; l.MTU != 1400 || l.NoARP {
			t.Errorf("in the container: %+v", l)
		}
		m.end("a")
		if heard := m.kernel.Heard(); len(heard) > 0 {
			t.Errorf("the host took part in the container's vlan: %q", heard)
		}
		m.mustRemove("n")
		m.wantHost(before)
	})
}
