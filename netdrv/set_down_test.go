package netdrv_test

import (
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// setDown sets a link of the host down, as an administrator does.
func (m *machine) setDown(name string) {
	m.t.Helper()
	m.must(m.kernel.SetLink(m.kernel.Link(name).Index, hw.LinkUp, hw.Link{}))
}

// wantDown is the error of a container on a device that was set down.
func wantDown(t *testing.T, err error, name string) {
	t.Helper()
	wantError(t, err, name+" was set down on the host while networks use it; when it may be used again: ip link set "+name+" up (waited 6s)")
}

// TestSetDownByAdministrator: a PF that an administrator has set down is not brought up for a container, whether the plugin or the administrator has
// created its VFs and whichever network the container is on. When it is up again, containers start.
func TestSetDownByAdministrator(t *testing.T) {
	t.Parallel()
	for _, vfs := range []int{0, 3} {
		story(t, func(m *machine) {
			pf := igb()
			pf.VFs = vfs
			m.kernel.AddPF(pf)
			m.settled()
			m.mustCreate("first", "netdevice=ens1f0", "vlan=1")
			m.mustRun("a", "first") // brings it up, if the VFs were there before
			m.setDown("ens1f0")
			m.mustCreate("n", "netdevice=ens1f0")
			_, _, err := m.run("b", "n")
			wantDown(t, err, "ens1f0")
			m.restart()
			_, _, err = m.run("b", "n")
			wantDown(t, err, "ens1f0")
			m.end("a")
			m.settled()
			if m.kernel.Link("ens1f0").Up {
				t.Error("the pf is up")
			}
			m.must(m.kernel.SetLink(m.kernel.Link("ens1f0").Index, hw.LinkUp, hw.Link{Up: true}))
			m.mustRun("b", "n")
			m.end("b")
			m.mustRemove("n")
			m.mustRemove("first")
			m.wantKeys()
		})
	}
}

// TestSetDownForAMoment: a device that is set down and up again, as when its addresses are configured again, is waited for.
func TestSetDownForAMoment(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"sriov", "macvlan"} {
		story(t, func(m *machine) {
			m.kernel.AddPF(igb())
			m.mustCreate("n", "netdevice=ens1f0", "mode="+mode)
			m.mustRun("a", "n")
			m.setDown("ens1f0")
			up := time.AfterFunc(2*time.Second, func() {
				m.must(m.kernel.SetLink(m.kernel.Link("ens1f0").Index, hw.LinkUp, hw.Link{Up: true}))
			})
			defer up.Stop()
			m.mustRun("b", "n")
		})
	}
}

// TestPFSetDownWithoutVFs: the administrator removes the VFs as well. They are not created again while the PF is down, neither for a
// container nor for a network.
func TestPFSetDownWithoutVFs(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "0"))
		m.setDown("ens1f0")
		_, _, err := m.run("a", "n")
		wantDown(t, err, "ens1f0")
		wantError(t, m.create("m", "netdevice=ens1f0", "vlan=7"),
			"ens1f0 was set down on the host while networks use it; when it may be used again: ip link set ens1f0 up")
		m.settled()
		if n := m.kernel.NumVFs(pfPCI); n != 0 || m.kernel.Link("ens1f0").Up {
			t.Errorf("%d vfs:\n%s", n, m.kernel)
		}
		m.mustRemove("n")
		m.mustCreate("m", "netdevice=ens1f0", "vlan=7") // the first network brings it up again
		m.mustRun("a", "m")
	})
}

// TestPFDownAfterBoot: a PF is down because nothing has set it up yet: after a boot, or when its driver was loaded again. It is brought up
// for a container.
func TestPFDownAfterBoot(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.end("a")
		m.reboot(func(m *machine) { m.kernel.AddPF(igb()) })
		m.after(time.Minute)
		m.mustRun("b", "n")
		m.end("b")
		m.kernel.RemovePF(pfPCI)
		m.kernel.AddPF(igb())
		m.after(time.Minute)
		m.mustRun("c", "n")
		m.end("c")
	})
}

// TestOtherPFSetDown: of several PFs the one that is down is left out.
func TestOtherPFSetDown(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0")
		m.setDown("ens1f0")
		m.mustRun("a", "n")
		m.wantIn("0000:02:10.0", "a")
		m.mustRun("b", "n")
		m.wantIn("0000:02:10.2", "b")
		if m.kernel.Link("ens1f0").Up {
			t.Error("the pf that was set down is up")
		}
	})
}

// TestParentSetDown: the same for the device of macvlan children. It is brought up for the first one.
func TestParentSetDown(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "mode=macvlan")
		m.mustRun("a", "n")
		m.setDown("ens1f0")
		_, _, err := m.run("b", "n")
		wantDown(t, err, "ens1f0")
		if m.kernel.Link("ens1f0").Up {
			t.Error("the device is up")
		}
		m.end("a")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestPFSetDownByPlugin: the plugin itself sets a PF down when the last network of its VFs goes, while another network has children of it.
// That is not mistaken for the administrator.
func TestPFSetDownByPlugin(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "mode=macvlan")
		m.mustCreate("vfs", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.end("a")
		m.mustRemove("vfs")
		if m.kernel.Link("ens1f0").Up {
			t.Error("the pf is still up")
		}
		m.mustRun("b", "n")
	})
}
