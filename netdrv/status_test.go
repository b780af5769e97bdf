package netdrv_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
)

// TestStatus: an operator sees each network with its options and devices, and each device that is not free with its endpoint, MAC and
// addresses.
func TestStatus(t *testing.T) {
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		want := []string{"network n sriov map[netdevice:ens1f0 vlan:4] [ens1f0]",
			"lent sriov vf 0 of ens1f0 (0000:01:10.0) on 0000:01:00.0 0: n " + endpoint("a") + " [" + addressOf("a") + "]"}
		if s, err := m.driver.Status(m.ctx, &admin.StatusRequest{}); err != nil || !strings.Contains(s.Devices[0].Before, ", vlan none, spoofchk on, trust off, ") {
			t.Errorf("what is put back: %v, %+v", err, s.Devices)
		}
		if diff := cmp.Diff(want, m.shown()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		m.end("a")
		if diff := cmp.Diff(want[:1], m.shown()); diff != "" {
			t.Errorf("after the container has gone (-want +got):\n%s", diff)
		}
	})
}

// TestHolderIsNamed: an error that says who has a device names the container, if an engine has told its name, also after a restart.
func TestHolderIsNamed(t *testing.T) {
	story(t, func(m *machine) {
		oneVF(m)
		m.containerNames = map[string]string{addressOf("a"): "web1"}
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		m.restart()
		_, _, err := m.run("b", "n")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is held by container web1 of network n")
		m.end("a")
	})
}

// shown returns what Status returns, as text.
func (m *machine) shown() []string {
	m.t.Helper()
	s, err := m.driver.Status(m.ctx, &admin.StatusRequest{})
	m.must(err)
	var lines []string
	for _, n := range s.Networks {
		lines = append(lines, fmt.Sprint("network ", n.ID, " ", n.Mode, " ", n.Options, " ", n.Devices))
	}
	for _, d := range s.Devices {
		lines = append(lines, fmt.Sprintf("%s %s %s on %s %d: %s %s %v", d.State, d.Mode, d.Label, d.PF, d.VF, d.Network, d.Endpoint, d.Addrs))
		if d.MAC == "" || d.Since.IsZero() { // both are set while a container has it
			m.t.Errorf("no MAC or no time: %+v", d)
		}
	}
	return slices.Clip(lines)
}
