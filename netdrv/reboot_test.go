package netdrv_test

import (
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
)

const pfPCI = "0000:01:00.0"

// TestReboot: a reboot removes the VFs, and they are created again for the first container. The engine deletes its endpoints from before,
// or has forgotten them.
func TestReboot(t *testing.T) {
	t.Parallel()
	for name, forgets := range map[string]bool{"the engine deletes its endpoints": false, "the engine forgets them": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4", "numvfs=2")
				m.mustRun("a", "n")
				m.mustRun("b", "n")
				var before string
				m.reboot(func(m *machine) {
					m.kernel.AddPF(igb())
					before = m.kernel.String()
				})
				if !forgets {
					m.must(m.leaveFrom("a", "n"))
					m.must(m.deleteFrom("a", "n"))
				}
				// Containers that restart=always starts at boot: they are started once, or not at all.
				m.mustRun("a2", "n")
				if n := m.kernel.NumVFs(pfPCI); n != 2 {
					t.Errorf("%d vfs, want 2 as before", n)
				}
				if !forgets {
					m.must(m.deleteFrom("b", "n"))
				}
				m.mustRun("b2", "n")
				states := m.vfStates("ens1f0")
				if states[0].VLAN.ID != 4 || states[1].VLAN.ID != 4 {
					t.Errorf("vfs are %+v; want both in vlan 4", states)
				}
				m.must(m.deleteFrom("b", "n")) // it has ended already
				m.settled()
				m.wantIn("0000:01:10.0", "a2")
				m.wantIn("0000:01:10.2", "b2")
				m.end("a2")
				m.end("b2")
				m.mustRemove("n")
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestRebootBeforeDriver: the engine starts containers before the NIC's driver is loaded, and starts each once. The calls wait. VFs are
// created when the PF has its final name, from which theirs are derived.
func TestRebootBeforeDriver(t *testing.T) {
	t.Parallel()
	late := func(after time.Duration) func(m *machine) {
		return func(m *machine) {
			m.kernel.UdevAfter = 300 * time.Millisecond
			pf, nic := igb(), ens2()
			pf.DriverAfter, nic.DriverAfter = after, after
			m.kernel.AddPF(pf)
			m.kernel.AddPF(nic)
		}
	}
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.kernel.AddPF(ens2())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "n")
		m.mustRun("w", "whole")
		m.reboot(late(5 * time.Second))
		m.must(m.deleteFrom("a", "n"))
		m.must(m.deleteFrom("w", "whole"))
		if source, _ := m.mustRun("a", "n"); source != "ens1f0v0" {
			t.Errorf("the vf is called %s", source)
		}
		m.mustRun("w", "whole")
		m.wantIn("0000:01:10.0", "a")

		m.reboot(late(time.Hour)) // or never
		m.must(m.deleteFrom("a", "n"))
		m.must(m.deleteFrom("w", "whole"))
		begun := time.Now()
		_, _, err := m.run("a", "n")
		wantError(t, err, "network n: 0000:01:00.0: it has no driver, and thus no netdev; load the driver, or bind it: "+
			"echo 0000:01:00.0 >/sys/bus/pci/drivers_probe")
		if waited := time.Since(begun); waited < 5*time.Second || waited > 8*time.Second {
			t.Errorf("waited %s, of 10 s that a call may take", waited)
		}
		m.after(20 * time.Minute) // it is not waited for any more
		begun = time.Now()
		_, _, err = m.run("a", "n")
		wantError(t, err, "network n: 0000:01:00.0: it has no driver, and thus no netdev; load the driver, or bind it: "+
			"echo 0000:01:00.0 >/sys/bus/pci/drivers_probe")
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("waited %s", waited)
		}
		m.mustRemove("n")
		m.mustRemove("whole")
		m.settled()
		m.wantKeys()
	})
}

// rebootsOnto is a container on a PF that is down, a reboot after which host adds the PF, and the end of the container: after it, and if used of
// another container, the host is as the reboot left it. last creates more before the network is removed.
func rebootsOnto(t *testing.T, option string, host, last func(m *machine)) {
	t.Helper()
	t.Parallel()
	for name, used := range map[string]bool{"used": true, "not used": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0", option)
				m.mustRun("a", "n")
				var before string
				m.reboot(func(m *machine) {
					host(m)
					m.after(time.Minute)
					before = m.kernel.String()
				})
				m.must(m.deleteFrom("a", "n"))
				if used {
					m.mustRun("b", "n")
					m.end("b")
				}
				last(m)
				m.settled()
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestRebootOntoUpPF: a PF is restored to how it was in this boot, not in an earlier one. One that the host uses now stays up.
func TestRebootOntoUpPF(t *testing.T) {
	rebootsOnto(t, "mode=sriov", func(m *machine) {
		pf := igb()
		pf.Up = true
		m.kernel.AddPF(pf)
		m.kernel.AddAddrs("ens1f0", "192.0.2.1/24")
	}, func(m *machine) { m.mustRemove("n") })
}

// TestRebootOntoForeignVFs: after a reboot the host's configuration has created VFs first. The plugin uses them, and does not remove them.
func TestRebootOntoForeignVFs(t *testing.T) {
	rebootsOnto(t, "vlan=4", func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs, pf.VFDriverAfter = true, 3, 0
		m.kernel.AddPF(pf)
	}, func(m *machine) {
		m.mustCreate("m", "netdevice=ens1f0", "vlan=5")
		m.mustRemove("n")
		m.mustRemove("m")
	})
}

// TestRebootRenames: a reboot may swap names. A snapshot of an earlier boot is not restored: the host's configuration is what counts.
func TestRebootRenames(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]bool{"the engine deletes its endpoints": true, "the engine forgets them": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				nic(m)
				m.mustCreate("vf", "netdevice=ens1f0", "vlan=4")
				m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "vf")
				m.mustRun("b", "whole")
				var before string
				m.reboot(func(m *machine) {
					pf := igb()
					pf.Name, pf.Up, pf.VFs, pf.TotalVFs, pf.VFDriverAfter = "ens2", true, 1, 1, 0
					m.kernel.AddPF(pf)
					nic := ens2()
					nic.Name = "ens1f0"
					m.kernel.AddPF(nic)
					m.kernel.AddAddrs("ens1f0", "192.0.2.77/24")
					m.kernel.AddLink(hw.Link{Name: "ens1f0v0", Kind: "macvlan", MAC: "02:00:00:00:77:77"})
					m.after(time.Minute)
					before = m.kernel.String()
				})
				if deletes {
					m.must(m.deleteFrom("a", "vf"))
					m.must(m.deleteFrom("b", "whole"))
				} else {
					m.settled()
				}
				m.wantHost(before)
				m.wantKeys("net/vf", "net/whole")
				m.mustRun("a2", "vf")
				m.mustRun("b2", "whole")
				m.wantIn("0000:01:10.0", "a2")
				m.wantIn("0000:02:00.0", "b2")
				m.end("a2")
				m.end("b2")
				m.wantHost(before)
			})
		})
	}
}

// TestRebootWithoutPCI: a device without a PCI address is created again by the host's configuration, and found by its name, also for a
// container that the engine starts at boot.
func TestRebootWithoutPCI(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]bool{"the engine deletes its endpoints": true, "the engine forgets them": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddVeth("tap0", "tap1")
				m.mustCreate("n", "netdevice=tap0", "mode=passthrough")
				m.mustRun("a", "n")
				var before string
				m.reboot(func(m *machine) {
					m.kernel.AddLink(hw.Link{Name: "other0", Kind: "tun", MAC: "02:00:00:00:77:77"}) // ifindexes differ
					m.kernel.AddVeth("tap0", "tap1")
					before = m.kernel.String()
				})
				if deletes {
					m.must(m.deleteFrom("a", "n"))
				}
				m.mustRun("a2", "n")
				m.end("a2")
				m.wantHost(before)
				m.mustRemove("n")
				m.settled()
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestHotUnplug: the PF is pulled while a container has a VF, and plugged in again. The VF is gone, and no call waits for it.
func TestHotUnplug(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		m.mustRun("b", "n")
		m.kernel.RemovePF(pfPCI)
		m.kernel.KillNS("a", 0)
		m.kernel.KillNS("b", 0)
		_, _, err := m.run("c", "n")
		wantError(t, err, "network n: 0000:01:00.0: no such device")
		m.leave("a")
		m.delete("a")
		m.wantKeys("dev/0000:01:10.2", "ep/n/"+endpoint("b"), "net/n", "pf/"+pfPCI)
		m.settled()

		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustRun("c", "n")
		m.wantIn("0000:01:10.0", "c")
		m.mustRun("d", "n") // not vf 1, which b has until it is deleted
		m.wantIn("0000:01:10.4", "d")
		m.leave("b")
		m.delete("b")
		m.mustRun("e", "n")
		m.wantIn("0000:01:10.2", "e")
		for _, c := range []string{"c", "d", "e"} {
			m.end(c)
		}
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestHotUnplugForGood: networks and endpoints of a device that is gone can be deleted.
func TestHotUnplugForGood(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		nic(m)
		m.mustCreate("vf", "netdevice=ens1f0", "vlan=4")
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "vf")
		m.mustRun("b", "whole")
		m.kernel.RemovePF(pfPCI)
		m.kernel.RemovePF("0000:02:00.0")
		for _, c := range []string{"a", "b"} {
			m.leave(c)
			m.kernel.KillNS(c, 0)
			m.delete(c)
		}
		m.wantKeys("net/vf", "net/whole", "pf/"+pfPCI)
		_, err := m.createEndpoint("c", "whole", plugin.EndpointInterface{})
		wantError(t, err, "network whole: netdev ens2: 0000:02:00.0: no such device")
		m.mustRemove("vf")
		m.mustRemove("whole")
		m.settled()
		m.wantKeys()
	})
}

// TestAdministratorChangesCount: VFs whose number an administrator has changed belong to the administrator, and stay.
func TestAdministratorChangesCount(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		setVFs := func(n string) { m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", n)) }

		setVFs("0") // while a container has one: they are created again for the next container
		m.mustRun("b", "n")
		m.wantIn("0000:01:10.2", "b")
		m.leave("a")
		m.kernel.KillNS("a", 0)
		m.delete("a")
		m.end("b")

		setVFs("0")
		setVFs("3")
		m.mustRun("c", "n")
		m.wantIn("0000:01:10.0", "c")
		m.end("c")
		m.mustCreate("m", "netdevice=ens1f0", "vlan=5")
		m.mustRemove("n")
		m.mustRemove("m")
		m.settled()
		if n := m.kernel.NumVFs(pfPCI); n != 3 {
			t.Errorf("%d vfs, want the 3 of the administrator", n)
		}
		m.wantKeys()
	})
}
