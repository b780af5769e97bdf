package netdrv_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// queued adds a PF with two VFs, each with up to four queues.
func queued(m *machine) {
	pf := igb()
	pf.Up, pf.VFs, pf.VFQueues = true, 2, 4
	m.kernel.AddPF(pf)
	m.settled()
}

// wantIRQs compares the CPUs that the interrupts of a PCI function go to.
func (m *machine) wantIRQs(pci string, want ...string) {
	m.t.Helper()
	if got := m.kernel.IRQs(pci); !slices.Equal(got, want) {
		m.t.Errorf("interrupts of %s go to %q, want %q", pci, got, want)
	}
}

// TestTuning: queues, rings, offloads and cores are set from the network's options while a container has the VF, and restored afterwards,
// however the container ends.
func TestTuning(t *testing.T) {
	for name, die := range map[string]func(m *machine){
		"stopped": func(m *machine) { m.end("a") },
		"killed with the engine": func(m *machine) {
			m.leave("a")
			m.kernel.KillNS("a", 2*time.Second)
			m.delete("a")
		},
		"killed with the plugin": func(m *machine) {
			m.restart()
			m.leave("a")
			m.kernel.KillNS("a", 5*time.Second)
			m.delete("a")
			m.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				queued(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "queues=2", "ring_rx=512", "ring_tx=2048", "ethtool=gro=off,TSO=off", "cores=4,2")
				m.mustRun("a", "n")
				now := m.kernel.InNS("a").Tuning("eth0")
				if now.Queues != (hw.Queues{Combined: 2}) || now.Rings != (hw.Rings{Rx: 512, Tx: 2048}) {
					t.Errorf("queues %v, rings %v", now.Queues, now.Rings)
				}
				for feature, on := range map[string]bool{"rx-gro": false, "tx-tcp-segmentation": false, "tx-tcp6-segmentation": false,
					"tx-generic-segmentation": true} {
					if f := now.Features[feature]; f.Active != on {
						t.Errorf("%s is %+v, want on %v", feature, f, on)
					}
				}
				m.wantIRQs("0000:01:10.0", "4", "2", "4")
				die(m)
				m.settled()
				m.wantIRQs("0000:01:10.0", "", "", "") // its driver was bound again, and has requested none yet
				m.wantHost(before)
			})
		})
	}
}

// TestPrivateFlags: switches of a driver are set, by their names in any case, and restored, also if no container has had the device. One that the
// driver does not have is refused when the network is created, and one that it does not change when a container starts.
func TestPrivateFlags(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		controlled(m)
		before := m.kernel.String()
		wantError(t, m.create("n", "netdevice=ens2", "mode=passthrough", "private_flags=turbo=on"), "ens2 (e1000e): set private flags turbo=on: "+
			"turbo is none of the driver's, which are: legacy-rx, vf-trunking")
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "private_flags=Legacy-RX=on,vf-trunking=off")
		m.kernel.Stick("ens2", hw.ControlPrivateFlag, syscall.EOPNOTSUPP)
		_, _, err := m.run("a", "n")
		wantError(t, err, "ens2 (e1000e): set private flags legacy-rx=on,vf-trunking=off: not supported by the driver (operation not supported)")
		m.kernel.Stick("ens2", "", 0)
		m.settled()
		m.wantHost(before)
		m.flagged("n", "private flag legacy-rx 01 private flag vf-trunking 00", before)
	})
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs, pf.VFFlags = true, 1, []string{"legacy-rx"}
		m.kernel.AddPF(pf)
		m.settled()
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "private_flags=legacy-rx=on")
		m.flagged("n", "private flag legacy-rx 01", before)
	})
}

// flagged gives a container a device of a network, which then has private flags, and again one whose container does not start.
func (m *machine) flagged(network, flags, before string) {
	m.t.Helper()
	want := func() {
		m.t.Helper()
		if now := m.kernel.String(); !strings.Contains(now, flags) {
			m.t.Errorf("without %q:\n%s", flags, now)
		}
	}
	m.mustRun("a", network)
	want()
	m.end("a")
	m.wantHost(before)
	_, err := m.createEndpoint("b", network, plugin.EndpointInterface{Address: "10.0.0.9/24"})
	m.must(err)
	want()
	m.must(m.deleteFrom("b", network))
	m.settled()
	m.wantHost(before)
}

// TestTuningOfFreshVF: a VF that has no netdev before it is attached is tuned as well. Afterwards it is as its driver creates it.
func TestTuningOfFreshVF(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "ring_rx=512", "cores=1")
		m.mustRun("a", "n")
		m.wantIRQs("0000:01:10.0", "1", "1", "1")
		m.end("a")
		if host := m.kernel.String(); strings.Contains(host, "rings") || strings.Contains(host, "irqs") {
			t.Errorf("not restored:\n%s", host)
		}
		m.mustRemove("n")
		m.wantHost(before)
	})
}

// TestTuningForOneContainer: a container's options override the network's; cores=none leaves the interrupts as they are.
func TestTuningForOneContainer(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		queued(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "queues=2", "cores=1", "ethtool=gro=off")
		m.must(m.runWith("a", "n", map[string]any{"queues": "3", "cores": "none", "ethtool": "rx-checksumming=off,gso=on"}))
		now := m.kernel.InNS("a").Tuning("eth0")
		if now.Queues.Combined != 3 || now.Features["rx-checksum"].Active || !now.Features["rx-gro"].Active {
			t.Errorf("queues %v, rx %+v, gro %+v", now.Queues, now.Features["rx-checksum"], now.Features["rx-gro"])
		}
		m.wantIRQs("0000:01:10.0", "0-7", "0-7", "0-7")
		m.end("a")
		m.wantHost(before)
	})
}

// TestDependentOffload: an offload that the kernel switches off with the one that it depends on is requested again afterwards.
func TestDependentOffload(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		queued(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "ethtool=sg=off,tso=off")
		m.mustRun("a", "n")
		m.end("a")
		m.wantHost(before)
		wantError(t, m.runWith("b", "n", map[string]any{"ethtool": "sg=off,tso=on"}), "ens1f0v0 (igbvf): set features "+
			"tx-scatter-gather=off,tx-tcp-segmentation=on,tx-tcp6-segmentation=on: the device says "+
			"tx-scatter-gather=off,tx-tcp-segmentation=off,tx-tcp6-segmentation=off")
		m.settled()
		m.wantHost(before)
	})
}

// TestNearCores: cores=numa is the CPUs of the device's NUMA node, or all if it has none.
func TestNearCores(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		node  int
		local string
		want  []string
	}{
		"a node":               {0, "2-3", []string{"2", "3", "2"}},
		"no node":              {-1, "0-7", []string{"0", "1", "2"}},
		"a node that is off":   {1, "12-15", []string{"0", "1", "2"}},
		"half of it is online": {1, "7-15", []string{"7", "7", "7"}},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.NUMANode, pf.LocalCPUs = c.node, c.local
				m.kernel.AddPF(pf)
				m.mustCreate("n", "netdevice=ens1f0", "cores=numa")
				m.mustRun("a", "n")
				m.wantIRQs("0000:01:10.0", c.want...)
				m.end("a")
			})
		})
	}
}

// TestAffinityOfAdministrator: the CPUs that an administrator has chosen for interrupts are restored, also if the kernel has not applied the
// choice yet.
func TestAffinityOfAdministrator(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		queued(m)
		up, down := true, false
		vf := m.kernel.Link("ens1f0v0").Index
		m.must(m.kernel.SetLink(vf, hw.LinkUp, hw.Link{Up: up}))
		m.kernel.Place("0000:01:10.0", "6-7")
		m.must(m.kernel.SetLink(vf, hw.LinkUp, hw.Link{Up: down}))
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "cores=0-1")
		m.mustRun("a", "n")
		m.wantIRQs("0000:01:10.0", "0", "1", "0")
		m.end("a")
		m.wantIRQs("0000:01:10.0", "6-7", "6-7", "6-7")
		m.wantHost(before)
	})
}

// TestWholeDeviceTuned: a whole device, up or down before, is tuned and restored. Its driver uses other interrupts for another number of
// queues; those in use then are spread.
func TestWholeDeviceTuned(t *testing.T) {
	t.Parallel()
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				d := ens2()
				d.Up = up
				m.kernel.AddPF(d)
				m.kernel.AddAddrs("ens2", "192.0.2.10/24")
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "queues=4", "ethtool=ntuple=on,highdma=on", "cores=0-3")
				m.mustRun("a", "n")
				if now := m.kernel.InNS("a").Tuning("eth0"); now.Queues.Combined != 4 || !now.Features["rx-ntuple-filter"].Active {
					t.Errorf("queues %v, ntuple %+v", now.Queues, now.Features["rx-ntuple-filter"])
				}
				m.wantIRQs("0000:02:00.0", "0", "1", "2", "3", "0", "1", "2", "3", "0")
				m.end("a")
				m.wantHost(before)
			})
		})
	}
	story(t, func(m *machine) { // a veth end has separate queues, and no interrupts
		m.kernel.AddVeth("tap0", "tap1")
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=tap0", "mode=passthrough", "queues=4", "ethtool=gro=off")
		m.mustRun("a", "n")
		if now := m.kernel.InNS("a").Tuning("eth0"); now.Queues != (hw.Queues{Rx: 4, Tx: 4}) || now.Features["rx-gro"].Active {
			t.Errorf("queues %v, gro %+v", now.Queues, now.Features["rx-gro"])
		}
		m.end("a")
		m.wantHost(before)
		wantError(t, m.runWith("a", "n", map[string]any{"cores": "1"}), "tap0 (veth): look for its interrupts: "+
			"it has no msi-x interrupts of its own in use")
		m.settled()
		m.wantHost(before)
	})
}

// TestTuningRefused: an error names the device, its driver and what it supports, and the host is as before. For a whole device the error
// comes when the network is created.
func TestTuningRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		queuedPF := igb()
		queuedPF.Name, queuedPF.PCI, queuedPF.VFQueues = "ens3f0", "0000:03:00.0", 4
		m.kernel.AddPF(queuedPF)
		m.mustCreate("igb", "netdevice=ens1f0")
		m.mustCreate("n", "netdevice=ens3f0")
		m.mustRun("first", "igb")
		m.end("first") // its VFs stay bound
		m.mustRun("first", "n")
		m.end("first")
		before := m.kernel.String()
		for _, c := range []struct{ network, key, value, want string }{
			{"igb", "queues", "2", "ens1f0v0 (igbvf): set queues 2: their number cannot be changed: not supported by the driver"},
			{"n", "queues", "5", "ens3f0v0 (igbvf): set queues 5: it can have at most 4"},
			{"igb", "ring_rx", "5000", "ens1f0v0 (igbvf): set rings 5000 rx, 1024 tx: they can be at most 4096 rx, 4096 tx"},
			{"igb", "ring_tx", "100", "ens1f0v0 (igbvf): set rings 1024 rx, 100 tx: the device says 1024 rx, 104 tx"},
			{"igb", "ethtool", "lro=on", "ens1f0v0 (igbvf): set features lro=on: lro is always off; " +
				"what can be changed is rx, tx, sg, tso, gso, gro"},
			{"igb", "ethtool", "gor=on", "ens1f0v0 (igbvf): set features gor=on: the kernel knows no gor; ethtool -k lists the names"},
			{"igb", "cores", "8", "ens1f0v0 (igbvf): spread interrupts: cpu 8 does not exist or is offline; online are 0-7"},
		} {
			wantError(t, m.runWith("a", c.network, map[string]any{c.key: c.value}), c.want)
			m.settled()
			m.wantHost(before)
		}
	})
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		for option, want := range map[string]string{
			"queues=9":     "ens2 (e1000e): set queues 9: it can have at most 8",
			"ring_rx=4097": "ens2 (e1000e): set rings 4097 rx, 256 tx: they can be at most 4096 rx, 4096 tx",
			"ethtool=highdma=off": "ens2 (e1000e): set features highdma=off: highdma is always on; " +
				"what can be changed is rx, tx, sg, tso, gso, gro, rxvlan, txvlan, ntuple, rxhash",
		} {
			wantError(t, m.create("x", "netdevice=ens2", "mode=passthrough", option), want)
		}
		m.wantHost(before)
	})
}

// TestInterruptsRefused: every reason why interrupts cannot be moved is an error for a container with the option cores. Others run.
func TestInterruptsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		quirk func(k *hwtest.Kernel, pf *hwtest.PF)
		fail  error
		want  string
	}{
		"managed": {func(_ *hwtest.Kernel, pf *hwtest.PF) { pf.ManagedIRQs = true }, nil, "send interrupt 29 to cpu 1: " +
			"it is managed by the kernel, which alone says where it goes: operation not permitted"},
		"no /proc/irq": {func(k *hwtest.Kernel, _ *hwtest.PF) { k.NoProcIRQ = true }, nil, "look for its interrupts: " +
			"the plugin was not given /proc/irq (see docs/tuning.md)"},
		"none in use": {func(_ *hwtest.Kernel, pf *hwtest.PF) { pf.IRQs = false }, nil, "look for its interrupts: " +
			"it has no msi-x interrupts of its own in use"},
		"anything else": {func(*hwtest.Kernel, *hwtest.PF) {}, errors.New("no luck"), "send interrupt 29 to cpu 1: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs = true, 1
				c.quirk(m.kernel, &pf)
				m.kernel.AddPF(pf)
				m.settled()
				m.mustCreate("n", "netdevice=ens1f0")
				m.mustRun("a", "n")
				m.end("a")
				before := m.kernel.String()
				m.kernel.OnCall(func(_ int, what string) error {
					if strings.HasPrefix(what, "irq ") {
						return c.fail
					}
					return nil
				})
				wantError(t, m.runWith("a", "n", map[string]any{"cores": "1"}), "ens1f0v0 (igbvf): "+c.want)
				m.kernel.OnCall(nil)
				m.settled()
				m.wantHost(before)
			})
		})
	}
}
