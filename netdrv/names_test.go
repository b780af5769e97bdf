package netdrv_test

import (
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestImpostor: while a device is away, another takes its name. The other is not restored in its place: the device stays quarantined until its
// name is free again.
func TestImpostor(t *testing.T) {
	t.Parallel()
	byName := func(k *hwtest.Kernel, name string) {
		k.AddLink(hw.Link{Name: name, Kind: "macvlan", MAC: "02:00:00:00:66:66", MTU: 1400, Up: true})
	}
	byAltName := func(k *hwtest.Kernel, name string) {
		k.AddLink(hw.Link{Name: "impostor", Kind: "macvlan", MAC: "02:00:00:00:66:66", MTU: 1400, Up: true})
		k.GiveAltName("impostor", name)
	}
	for name, c := range map[string]struct {
		hardware func(m *machine)
		options  []string
		appear   func(k *hwtest.Kernel, name string)
		own      string // name of the device
		busy     string // error of the next container
	}{
		"of a vf": {oneVF, []string{"netdevice=ens1f0", "vlan=4"}, byName, "ens1f0v0",
			"ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is quarantined: " +
				"eth0: rename to ens1f0v0: file exists"},
		"by alternative name": {oneVF, []string{"netdevice=ens1f0", "vlan=4"}, byAltName, "ens1f0v0",
			"ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is quarantined: " +
				"eth0: rename to ens1f0v0: file exists"},
		"of a whole device": {nic, []string{"netdevice=ens2", "mode=passthrough"}, byName, "ens2",
			"ens2 is quarantined: eth0: rename to ens2: file exists; a device that is handed over whole serves one " +
				"container at a time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				c.hardware(m)
				m.mustCreate("n", c.options...)
				before := m.kernel.String()
				source, _ := m.mustRun("a", "n")
				if source != c.own {
					t.Fatalf("the device is %s, want %s", source, c.own)
				}
				c.appear(m.kernel, source)
				impostor := m.kernel.Link(source)

				// The engine cannot move the device home under its name, and leaves that to the kernel.
				m.leave("a")
				if err := m.kernel.MoveHome("a", "eth0", source); err == nil {
					t.Error("moved home under a name that is taken")
				}
				want := map[string]string{source: "eth0"}[m.kernel.InNS("a").Links()[0].Name]
				if want != "" {
					m.must(m.kernel.InNS("a").SetLink(source, hw.Link{Name: want}, hw.LinkName))
				}
				m.kernel.KillNS("a", time.Second)
				m.delete("a")
				m.settled()
				if diff := cmp.Diff(impostor, m.kernel.Link(source)); diff != "" {
					t.Errorf("the impostor was changed:\n%s", diff)
				}
				_, _, err := m.run("b", "n")
				wantError(t, err, c.busy)

				m.after(5 * time.Hour)
				m.kernel.DelLink(impostor.Name)
				m.after(time.Second)
				m.wantHost(before)
				m.wantKeys("net/n")
				m.mustRun("b", "n")
				m.end("b")
			})
		})
	}
}

// TestOwnAltName: a device is restored although udev, or the container, has given it its own old name as an alternative name.
func TestOwnAltName(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0")
		before := m.kernel.String()
		source, _ := m.mustRun("a", "n")
		m.kernel.InNS("a").GiveAltName("eth0", source)
		m.leave("a")
		m.kernel.KillNS("a", time.Second)
		m.delete("a")
		m.wantHost(before)
		m.wantKeys("net/n")
	})
}

// TestUdevIsSlow: a VF is attached under its final name, if udev sets that within a bound.
func TestUdevIsSlow(t *testing.T) {
	t.Parallel()
	for after, name := range map[time.Duration]string{0: "ens1f0v0", 3 * time.Second: "ens1f0v0"} {
		t.Run(after.String(), func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.UdevAfter = after
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0")
				if source, _ := m.mustRun("a", "n"); source != name {
					t.Errorf("it is called %s, want %s", source, name)
				}
				m.end("a")
				if l := m.kernel.Link(name); l.Up {
					t.Errorf("back as %+v", l)
				}
			})
		})
	}
}

// TestNoUdev: without udev, or with one that keeps the kernel's names, each VF that is bound gets the first free number, which may be that of
// a VF in a container. Each has a unique name all the same.
func TestNoUdev(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ noUdev, slow bool }{
		"no udev":                     {noUdev: true},
		"udev comes when all is over": {slow: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.NoUdev = c.noUdev
				if c.slow {
					m.kernel.UdevAfter = time.Hour
				}
				pf := igb()
				pf.TotalVFs = 2
				m.kernel.AddPF(pf)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				a, _ := m.mustRun("a", "n")
				b, _ := m.mustRun("b", "n")
				if a == b {
					t.Errorf("both vfs are called %s", a)
				}
				m.end("b")
				m.end("a")
				m.wantKeys("net/n", "pf/0000:01:00.0")
				for _, source := range []string{a, b} {
					if l := m.kernel.Link(source); l.Up {
						t.Errorf("%s is up", source)
					}
				}
				m.mustRun("c", "n")
				m.mustRun("d", "n")
				for _, container := range []string{"c", "d"} {
					m.leave(container)
					m.kernel.KillNS(container, 0)
					m.delete(container)
				}
				m.settled()
				m.mustRemove("n")
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestNamesOfContainer: a device of the host is called as those of the container are, or has such an alternative name. It is handed over
// under a name that no other device has, in both directions, and has its own again at home.
func TestNamesOfContainer(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"a vf":           {"netdevice=ens1f0"},
		"a whole device": {"netdevice=eth1", "mode=passthrough"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.TotalVFs = true, 1, 1
				m.kernel.AddPF(pf)
				m.kernel.AddPF(hwtest.PF{Name: "eth9", PCI: "0000:03:00.0", Up: true})
				m.settled()
				dev := map[string]string{"a vf": "ens1f0v0", "a whole device": "eth9"}[name]
				m.must(m.kernel.SetLink(m.kernel.Link(dev).Index, hw.LinkName, hw.Link{Name: "eth1"}))
				m.kernel.GiveAltName("eth1", "eth2")
				before := m.kernel.String()
				m.mustCreate("n", options...)
				inside := m.kernel.InNS("a")
				for _, n := range []string{"eth0", "eth1", "eth2"} { // of other networks
					inside.AddLink(hw.Link{Name: n, Kind: "veth"})
				}
				join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: addressOf("a")})
				m.must(err)
				source := join.InterfaceName.SrcName
				m.must(m.kernel.MoveToNS("a", source, "eth3"))
				m.where["a"] = place{"n", source, "eth3"}
				if own := m.ownName("a", source); own != "eth1" {
					t.Errorf("it was called %s", own)
				}
				m.disconnect("a")
				m.kernel.KillNS("a", 0)
				m.settled()
				m.wantHost(before)
				m.wantKeys("net/n")
			})
		})
	}
}
