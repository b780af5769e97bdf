package netdrv_test

import (
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
)

// TestHostUsesVF: the administrator takes one of the VFs that the plugin made for the host. No container gets it, and the
// last network leaves it and the others where they are, until he has no use for it any more.
func TestHostUsesVF(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		source, _ := m.mustRun("a", "n") // binds it
		m.end("a")
		vf, up, down := m.kernel.Link(source).Index, true, false
		m.kernel.AddAddrs(source, "2001:db8::7/64")
		m.must(m.kernel.SetLink(vf, hw.LinkUp, hw.Link{Up: up}))
		if other, _ := m.mustRun("b", "n"); other == source {
			t.Errorf("a container got %s", other)
		}
		m.end("b")
		inUse := m.kernel.String()
		logged := m.logTo(zapcore.WarnLevel)
		const why = "ens1f0 (0000:01:00.0): remove vfs: vf 0 of ens1f0 (0000:01:10.0) is up in the host: device busy"
		wantError(t, m.remove("n"), "network n: it is removed, but vfs that the plugin created stay until they can be removed: "+why)
		m.settled()
		m.wantHost(inUse)
		m.after(3*time.Hour + 5*time.Minute) // the engine does not say it to its user: the log does, again and again
		times := 0
		for _, e := range logged.FilterMessage("reconcile").All() {
			if e.ContextMap()["err"] == why {
				times++
			}
		}
		if times != 4 {
			t.Errorf("it is logged %d times in three hours, want 4: %v", times, logged.All())
		}
		if n := m.counted("vfs_removed"); n != 0 {
			t.Errorf("counted as removed %d times", n)
		}
		m.must(m.kernel.SetLink(vf, hw.LinkUp, hw.Link{Up: down})) // which costs it that address
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestHostUsesPF: a PF that was down when the plugin divided it, and that the host has come to use since, stays up.
func TestHostUsesPF(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(m *machine){
		"with an address": func(m *machine) { m.kernel.AddAddrs("ens1f0", "192.0.2.1/24") },
		"for a container of Docker's macvlan driver": func(m *machine) {
			m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("ens1f0").Index})
			m.must(m.kernel.MoveToNS("other", "mv0", "eth0"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
				use(m)
				m.mustRemove("n")
				m.settled()
				if n, up := m.kernel.NumVFs(pfPCI), m.kernel.Link("ens1f0").Up; n != 0 || !up {
					t.Errorf("%d vfs, up: %v; want none, and up", n, up)
				}
				m.wantKeys()
			})
		})
	}
}

// TestOtherNumber: the error about a number of VFs that is not the one of other networks names them.
func TestOtherNumber(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("one", "netdevice=ens1f0", "numvfs=2")
		m.mustCreate("two", "netdevice=ens1f0")
		wantError(t, m.create("n", "netdevice=ens1f0", "numvfs=3"), "option numvfs: 3 is not possible: the plugin made 2 vfs on "+
			"ens1f0 (0000:01:00.0) for network one, two; say numvfs=2, or leave it out")
		m.mustRun("a", "one")
		m.mustRemove("one")
		m.mustRemove("two")
		wantError(t, m.create("n", "netdevice=ens1f0", "numvfs=3"), "option numvfs: 3 is not possible: the plugin made 2 vfs on "+
			"ens1f0 (0000:01:00.0) for containers that are ending; say numvfs=2, or leave it out")
	})
}

// TestVFsOfOtherNetwork: VFs that the plugin created stay while a network has one of them whole, or children of one, and go with the last
// such network.
func TestVFsOfOtherNetwork(t *testing.T) {
	for _, mode := range []string{"passthrough", "macvlan"} {
		t.Run(mode, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("vfs", "netdevice=ens1f0", "numvfs=2")
				m.mustRun("a", "vfs") // binds the VF, so that it has a netdev
				m.end("a")
				_, vf, ok := m.kernel.Netdev("0000:01:10.0")
				if !ok {
					t.Fatal("the vf has no netdev")
				}
				m.mustCreate("other", "netdevice="+vf.Name, "mode="+mode)
				m.mustRemove("vfs")
				m.settled()
				m.mustRun("b", "other")
				m.end("b")
				m.mustRemove("other")
				m.must(m.kernel.SetLink(vf.Index, hw.LinkUp, hw.Link{})) // the parent of children stays up, and a vf that is up counts as used
				m.settled()
				if states := m.vfStates("ens1f0"); len(states) > 0 {
					t.Errorf("%d vfs are left", len(states))
				}
				m.wantKeys()
			})
		})
	}
}
