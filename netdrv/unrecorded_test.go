package netdrv_test

import (
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/store"
)

// wantUnrecorded compares what an operator is told of devices without a record: each want is in the text of its place.
func (m *machine) wantUnrecorded(want ...string) {
	m.t.Helper()
	got, err := m.driver.Status(m.ctx, &admin.StatusRequest{Unrecorded: true})
	m.must(err)
	if len(got.Unrecorded) != len(want) {
		m.t.Fatalf("without a record are\n%s\nwant %q", strings.Join(got.Unrecorded, "\n"), want)
	}
	for i, w := range want {
		if !strings.Contains(got.Unrecorded[i], w) {
			m.t.Errorf("%s\ndoes not contain %q", got.Unrecorded[i], w)
		}
	}
}

// loseLedger replaces the plugin by one without records, as docker plugin rm and install do.
func (m *machine) loseLedger() {
	m.stop()
	m.store = store.NewMemory()
	m.start(m.store)
	m.where = map[string]place{}
}

// TestUnrecorded: a plugin without records says what one before it has left on the host, once in its log and in its status, with what to do, and
// touches none of it. What it says to do ends it.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		nic(m)
		m.kernel.AddVeth("tap0", "tap1")
		for network, options := range map[string][]string{
			"vfs": {"netdevice=ens1f0", "vlan=4"}, "whole": {"netdevice=tap0", "mode=passthrough"},
			"lan": {"netdevice=ens2", "mode=macvlan", "vlan=100"},
		} {
			m.mustCreate(network, options...)
			m.mustRun("on-"+network, network)
		}
		m.settled()
		m.wantUnrecorded()
		host, whole := m.kernel.String(), m.where["on-whole"]

		m.loseLedger()
		logged := m.logTo(zapcore.WarnLevel)
		m.settled()
		const remedy = "bring back the records from a backup (passthroughctl restore FILE), or end the containers that have them and remove them: " +
			"echo 0 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"
		want := []string{
			"ens2.100 (vlan): another installation of the plugin has made it, and this one has no record of it; if nothing uses it: ip link delete ens2.100",
			"ens2.100: another installation of the plugin has made what containers have on it (links: 1)",
			"ens1f0 (0000:01:00.0): another installation of the plugin seems to have made its 7 vfs, and this one has no record of them " +
				"(vf 0 is in another network namespace, has vlan 4); it never removes them: " + remedy,
		}
		m.wantUnrecorded(want...)
		if n := logged.FilterMessageSnippet("device without a record").Len(); n != len(want) {
			t.Errorf("logged in ten minutes: %v", logged.All())
		}
		m.wantHost(host)

		// A network on the PF is no record of its VFs, nor of what they are used for.
		m.mustCreate("new", "netdevice=ens1f0", "vlan=4")
		m.wantUnrecorded(want[0], want[2])
		m.mustRun("b", "new")
		m.wantIn("0000:01:10.0", "on-vfs")
		m.end("b")
		m.mustRemove("new")

		m.must(m.kernel.MoveHome("on-whole", whole.inside, whole.source)) // as the engine does when a container stops
		for _, c := range []string{"on-vfs", "on-whole", "on-lan"} {
			m.kernel.KillNS(c, 0)
		}
		m.settled()
		const home = "another installation of the plugin has given it to a container, and this one has no record of it; set it up as it was, and " +
			"remove the mark: ip link set "
		m.wantUnrecorded("ens2.100", whole.source+": "+home+whole.source+` alias ""`, "7 vfs, and this one has no record of them (vf 0 has vlan 4); it never")
		m.must(m.kernel.RemoveLink(m.kernel.Link("ens2.100").Index))
		m.must(m.kernel.SetLink(m.kernel.Link(whole.source).Index, hw.LinkAlias, hw.Link{}))
		m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_numvfs", "0"))
		m.wantUnrecorded()
		m.wantKeys()
	})
}

// TestUnrecordedMakes: VFs that a plugin has made are found on each make of NIC.
func TestUnrecordedMakes(t *testing.T) {
	t.Parallel()
	for name, behaviour := range map[string]hwtest.Behaviour{"igb": hwtest.IGB(), "mlx5": hwtest.MLX5()} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Behaviour = behaviour
				m.kernel.AddPF(pf)
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
				m.loseLedger()
				m.wantUnrecorded("seems to have made its 2 vfs, and this one has no record of them; it never")
			})
		})
	}
}

// TestAdministratorsVFs: VFs that an administrator has made and set up are his: only a plugin without any records speaks of them, and only of
// what may be an earlier one's.
func TestAdministratorsVFs(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs = true, 3
		m.kernel.AddPF(pf)
		m.settled()
		m.wantUnrecorded()
		m.tag(1, 7)
		m.wantUnrecorded("ens1f0 (0000:01:00.0): vfs are set up, and the plugin has no records (vf 1 has vlan 7); if an installation of before has done " +
			"that, bring back the records from a backup (passthroughctl restore FILE), or end the containers that have them; what an " +
			"administrator has done stays")
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.wantUnrecorded()
		m.mustRun("a", "n")
		m.wantUnrecorded()
		m.end("a")
		m.wantUnrecorded()
	})
}
