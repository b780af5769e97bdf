package netdrv_test

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// slowPFs adds PFs that create VFs slowly: both of them together take longer than a call may take.
func slowPFs(m *machine) {
	for _, pf := range []hwtest.PF{
		{Name: "ens1f0", PCI: pfPCI, TotalVFs: 2, CarrierAfter: time.Second, ResetTakes: 5 * time.Second},
		{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 2, CarrierAfter: time.Second, ResetTakes: 5 * time.Second},
	} {
		m.kernel.AddPF(pf)
	}
}

// slowNetwork creates a network of slow PFs.
func slowNetwork(m *machine) {
	slowPFs(m)
	m.mustCreate("first", "netdevice=ens1f0")
	m.mustCreate("second", "netdevice=ens2f0")
	m.mustCreate("n", "netdevice=ens1f0,ens2f0", "vlan=4")
}

// TestRebootWithSlowPFs: the engine starts each container once, a few seconds after the plugin. The VFs of all PFs are being created by then.
func TestRebootWithSlowPFs(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		slowNetwork(m)
		m.mustRun("a", "n")
		m.mustRun("b", "n")
		m.reboot(slowPFs)
		m.after(3 * time.Second)
		for _, c := range []string{"a", "b"} {
			m.must(m.deleteFrom(c, "n"))
			m.mustRun(c, "n")
		}
		m.wantIn("0000:01:10.0", "a")
		m.wantIn("0000:02:10.0", "b")
	})
}

// TestRebootNamesFirst: the VFs from before a reboot are created again when the PF has a driver and its final name.
func TestRebootNamesFirst(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("before", "n")
		m.reboot(func(m *machine) {
			m.kernel.UdevAfter, m.kernel.NoLiveRename = 2*time.Second, true
			pf := igb()
			pf.DriverAfter = 90 * time.Second
			m.kernel.AddPF(pf)
		})
		m.after(91 * time.Second)
		if _, pf, ok := m.kernel.Netdev(pfPCI); !ok || pf.Up || pf.Name == "ens1f0" {
			t.Errorf("before the pf has its name: %+v", pf)
		}
		m.after(9 * time.Second)
		if n := m.kernel.NumVFs(pfPCI); n != 2 {
			t.Errorf("%d vfs, want 2 as before:\n%s", n, m.kernel)
		}
		if source, _ := m.mustRun("a", "n"); source != "ens1f0v0" {
			t.Errorf("the vf is called %s", source)
		}
	})
}

// TestRebootWithoutContainers: VFs that no container had when the machine went down are created when a container needs one.
func TestRebootWithoutContainers(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.end("a")
		m.reboot(func(m *machine) { m.kernel.AddPF(igb()) })
		m.after(time.Hour)
		if n := m.kernel.NumVFs(pfPCI); n != 0 {
			t.Errorf("%d vfs, and no container needs one", n)
		}
		m.mustRun("b", "n")
	})
}

// TestPluggedBackIn: a NIC is unplugged while a container has one of its VFs, and plugged in again. Its VFs are created again without a call,
// and after the NIC has its final name.
func TestPluggedBackIn(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.kernel.RemovePF(pfPCI)
		m.after(time.Minute)
		m.must(m.deleteFrom("a", "n"))
		m.after(time.Hour)
		m.kernel.UdevAfter, m.kernel.NoLiveRename = 2*time.Second, true
		m.kernel.AddPF(igb())
		m.after(10 * time.Second)
		if n := m.kernel.NumVFs(pfPCI); n != 2 {
			t.Errorf("%d vfs, want 2 as before:\n%s", n, m.kernel)
		}
		if source, _ := m.mustRun("b", "n"); source != "ens1f0v0" {
			t.Errorf("the vf is called %s", source)
		}
	})
}

// secondPort is the second port of a NIC whose driver numbers its ports in dev_port, PFs and VFs.
func secondPort() hwtest.PF {
	return hwtest.PF{Name: "ens1f0", PCI: pfPCI, TotalVFs: 2, Port: 1, Behaviour: hwtest.SFC(), Driver: "sfc", VFDriver: "sfc"}
}

// TestNumberedPort: PF and VFs have a port number although each function has one netdev. The VFs are given to containers and restored, and
// created again after a reboot before a container asks for them.
func TestNumberedPort(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(secondPort())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=7")
		m.mustRun("a", "n")
		m.end("a")
		m.mustRun("b", "n")
		m.reboot(func(m *machine) { m.kernel.AddPF(secondPort()) })
		m.after(10 * time.Second)
		if n := m.kernel.NumVFs(pfPCI); n != 2 {
			t.Errorf("%d vfs, want 2 as before:\n%s", n, m.kernel)
		}
		m.must(m.deleteFrom("b", "n"))
		m.mustRun("c", "n")
		m.end("c")
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestSeveralPorts: a function with several ports, as of a ConnectX-3, is refused under each of their names.
func TestSeveralPorts(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(hwtest.PF{Name: "ens1", PCI: pfPCI, TotalVFs: 8, VFs: 2, Up: true})
		m.kernel.AddOn(pfPCI, "", 1, hw.Link{Name: "ens1d1"})
		m.settled()
		before := m.kernel.String()
		const why = " is another port of the same pci function, and its vfs may be of either; hand over a whole port or vf with " +
			"mode=passthrough"
		wantError(t, m.create("n", "netdevice=ens1"), "option netdevice: ens1 (0000:01:00.0): ens1d1"+why)
		wantError(t, m.create("n", "netdevice=ens1d1"), "option netdevice: ens1d1 (0000:01:00.0): ens1"+why)
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestVFsTakenAway: an administrator removes the VFs of a PF that stays. They are created again when a container needs one.
func TestVFsTakenAway(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "0"))
		m.after(time.Hour)
		if n := m.kernel.NumVFs(pfPCI); n != 0 {
			t.Errorf("%d vfs, and no container needs one", n)
		}
		m.must(m.deleteFrom("a", "n"))
		m.mustRun("b", "n")
	})
}

// tooLong is the error of a network whose VFs take longer than the call may.
const tooLong = "creating what the network needs takes longer than this call may; try again in some seconds: context deadline exceeded"

// TestVFsSlowerThanCall: VFs whose creation takes longer than a call may are there for the next attempt, however far they had come: a NIC with many
// VFs needs a minute. If there is none, they are removed, and the PF is as before.
func TestVFsSlowerThanCall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		carrier time.Duration // from when the PF is up until it has carrier
		reset   time.Duration // the carrier's absence when VFs are made
		write   time.Duration // of the kernel for sriov_numvfs, which nothing interrupts
		mac     time.Duration // of the kernel for the MAC of one VF
	}{
		{"while the pf has no carrier", 5 * time.Second, 5500 * time.Millisecond, 0, 0},
		{"while the kernel makes them", time.Second, 5 * time.Second, 25 * time.Second, 0},
		{"while they get macs", time.Second, time.Second, 0, 8 * time.Second},
	} {
		pf := hwtest.PF{Name: "ens1f0", PCI: pfPCI, TotalVFs: 2, CarrierAfter: tt.carrier, ResetTakes: tt.reset}
		slow := func(m *machine) {
			m.kernel.AddPF(pf)
			m.kernel.OnCall(func(_ int, what string) error {
				switch {
				case strings.Contains(what, "sriov_numvfs") && m.kernel.NumVFs(pfPCI) == 0:
					<-time.After(tt.write)
				case strings.Contains(what, " mac "):
					<-time.After(tt.mac)
				}
				return nil
			})
		}
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(m *machine) {
				slow(m)
				wantError(t, m.create("n", "netdevice=ens1f0"), tooLong)
				m.after(5 * time.Second)
				m.mustCreate("n", "netdevice=ens1f0")
				m.mustRun("a", "n")
				m.end("a")
				m.must(m.remove("n"))
				if n := m.kernel.NumVFs(pfPCI); n != 0 {
					t.Errorf("%d vfs are left with the network", n)
				}
			})
		})
		t.Run(tt.name+", without another attempt", func(t *testing.T) {
			story(t, func(m *machine) {
				slow(m)
				before := m.kernel.String()
				wantError(t, m.create("n", "netdevice=ens1f0"), tooLong)
				m.after(3 * time.Minute)
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestSlowPFBesideFast: when the VFs of one PF take longer than a call may, those of the network's other PF are kept for the next attempt, too.
func TestSlowPFBesideFast(t *testing.T) {
	t.Parallel()
	const slow = "0000:02:00.0"
	for name, again := range map[string]bool{"another attempt": true, "no other attempt": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				for pci, name := range map[string]string{pfPCI: "ens1f0", slow: "ens2f0"} {
					m.kernel.AddPF(hwtest.PF{Name: name, PCI: pci, TotalVFs: 2, CarrierAfter: time.Second, ResetTakes: time.Second})
				}
				before := m.kernel.String()
				var writes atomic.Int32 // to the fast PF
				m.kernel.OnCall(func(_ int, what string) error {
					switch {
					case !strings.Contains(what, "sriov_numvfs"):
					case strings.Contains(what, slow) && m.kernel.NumVFs(slow) == 0:
						<-time.After(25 * time.Second)
					case strings.Contains(what, pfPCI):
						writes.Add(1)
					}
					return nil
				})
				wantError(t, m.create("n", "netdevice=ens1f0,ens2f0"), tooLong)
				if again {
					m.after(5 * time.Second)
					m.mustCreate("n", "netdevice=ens1f0,ens2f0")
					if n := writes.Load(); n != 1 {
						t.Errorf("%d writes of the number of vfs of the fast pf, want 1", n)
					}
					m.mustRemove("n")
				}
				m.after(3 * time.Minute)
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestVFsRefused: a PF whose VFs cannot be created again is tried with a backoff, however often its link changes.
func TestVFsRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		var asked atomic.Int32
		var relents atomic.Bool
		m.reboot(func(m *machine) {
			m.kernel.OnCall(func(_ int, what string) error {
				if !strings.Contains(what, "sriov_numvfs") || relents.Load() {
					return nil
				}
				asked.Add(1)
				return syscall.EIO
			})
			m.kernel.AddPF(igb())
		})
		for i := range 400 {
			length := 500 + i
			m.must(m.kernel.SetLink(m.kernel.Link("ens1f0").Index, hw.LinkTxQLen, hw.Link{TxQLen: length}))
			m.after(time.Second)
		}
		if n := asked.Load(); n != 3 { // at once, after two minutes, and four minutes after that
			t.Errorf("tried %d times in 400 s", n)
		}
		relents.Store(true)
		m.after(8 * time.Minute)
		if n := m.kernel.NumVFs(pfPCI); n != 2 {
			t.Errorf("%d vfs, want 2 as before", n)
		}
	})
}
