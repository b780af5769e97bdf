package netdrv_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// plan has a network planned, and returns why it would be refused. It fails if that changes the ledger or a device.
func (m *machine) plan(ctx context.Context, r *plugin.CreateNetworkRequest) error {
	m.t.Helper()
	if m.unplanned || slices.Contains(m.keys(), "net/"+r.NetworkID) { // a plan is of a network that is new
		return nil
	}
	synctest.Wait() // the reconciler has nothing more to do at this moment
	ledger, host, calls, start := m.ledger(), m.kernel.String(), len(m.kernel.Calls()), time.Now()
	_, err := m.driver.Plan(ctx, r)
	if time.Since(start) > 0 { // it had to wait for the reconciler, which has changed something
		return err
	}
	if now := m.ledger(); now != ledger {
		m.t.Errorf("a plan changed the ledger from\n%s\nto\n%s", ledger, now)
	}
	if now := m.kernel.String(); now != host {
		m.t.Errorf("a plan changed the host from\n%s\nto\n%s", host, now)
	}
	if made := m.kernel.Calls()[calls:]; len(made) > 0 {
		m.t.Errorf("a plan set something: %s", made)
	}
	return err
}

// asPlanned compares the outcome of a creation with the plan: what the plan refuses is refused, with the same words.
func (m *machine) asPlanned(id string, planned, err error) {
	m.t.Helper()
	if planned != nil && (err == nil || err.Error() != planned.Error()) {
		m.t.Errorf("network %s: the plan was refused:\n%v\nthe creation:\n%v", id, planned, err)
	}
}

// TestPlan: a plan says what the network would do to the NIC and the host; that it changes nothing each story checks, before it creates a
// network.
func TestPlan(t *testing.T) {
	t.Parallel()
	const pf = "ens1f0 (0000:01:00.0)"
	for name, c := range map[string]struct {
		prepare func(m *machine)
		request plugin.CreateNetworkRequest
		options string
		want    string // mode, devices, gateways, steps and what is not known, a line each
	}{
		"vfs are created": {func(m *machine) { m.kernel.AddPF(igb()) }, plugin.CreateNetworkRequest{}, "netdevice=ens1f0 vlan=100",
			"sriov ens1f0\n" + pf + " is down, and is brought up\n7 vfs are created on " + pf + ", and removed with its last network\n" +
				"vlan 100 of " + pf + " belongs to this network\n? whether the vfs of " + pf + " can be created, and what they can have"},
		"vfs are there": {oneVF, plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"}}},
			"netdevice=ens1f0 spoofchk=no trust=yes",
			"sriov ens1f0\ngateway 10.1.0.1\ncontainers get the 1 vfs that " + pf + " has\n" +
				"? whether driver igb can set spoofchk, trust; it is tried on a free vf of " + pf},
		"a vlan device": {nic, plugin.CreateNetworkRequest{}, "netdevice=ens2 mode=macvlan vlan=7",
			"macvlan ens2.7 ens2\nens2.7 is created, the device of vlan 7 on ens2, and removed with its last network\n" +
				"ens2.7 stays in the host; each container gets a device of kind macvlan on it\n? whether the kernel can create ens2.7"},
		"host access": {nic, plugin.CreateNetworkRequest{IPv4Data: hostPool()}, "netdevice=ens2 mode=macvlan host_access=yes",
			"macvlan ens2\nens2 stays in the host; each container gets a device of kind macvlan on it\n" +
				"the host gets a device on ens2 with the addresses 10.255.0.1"},
		"handed over": {nic, plugin.CreateNetworkRequest{}, "netdevice=ens2 mode=passthrough",
			"passthrough ens2\nens2 is handed over whole, to one container at a time\n" +
				"while a container has ens2, the host is without this: 192.0.2.10/24, 2001:db8::10/64\n? what of the settings of ens2 will be lost with the first container, " +
				"such as sysctls that the plugin may not write: they are written to find out; the log names them"},
		"in place of another": {func(m *machine) {
			m.kernel.AddPF(igb())
			m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
			m.restart()
		}, plugin.CreateNetworkRequest{}, "netdevice=ens1f0 vlan=100",
			"sriov ens1f0\ncontainers get the 7 vfs that " + pf + " has\nvlan 100 of " + pf + " belongs to this network\n" +
				"network " + swarmNet[:12] + " is removed from the plugin's records: the engine has forgotten it"},
		"refused": {func(m *machine) { oneVF(m); m.mustCreate("n", "netdevice=ens1f0", "vlan=100") }, plugin.CreateNetworkRequest{}, "netdevice=ens1f0 vlan=100",
			"option vlan: 100 is used on " + pf + " by network n; choose another" + left("n")},
		"refused later": {func(m *machine) { oneVF(m) }, plugin.CreateNetworkRequest{}, "netdevice=ens1f0 mtu=9500",
			"option mtu: 9500 is above 9216, the most that " + pf + " with driver igb can have"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				c.prepare(m)
				m.settled()
				if got := m.planned(&c.request, strings.Fields(c.options)...); got != c.want {
					t.Errorf("the plan is\n%s\nwant\n%s", got, c.want)
				}
				_ = m.createWith("planned", &c.request, strings.Fields(c.options)...) // compares the outcome
			})
		})
	}
}

// planned returns a plan as text, or why the network would be refused.
func (m *machine) planned(r *plugin.CreateNetworkRequest, options ...string) string {
	m.t.Helper()
	ctx, cancel := m.call()
	defer cancel()
	q := *r
	q.Options = request(options...)
	p, err := m.driver.Plan(ctx, &q)
	if err != nil {
		return err.Error()
	}
	lines := []string{p.Mode + " " + strings.Join(p.Devices, " ")}
	if len(p.Gateways) > 0 {
		lines = append(lines, "gateway "+strings.Join(p.Gateways, " "))
	}
	lines = append(lines, p.Steps...)
	for _, u := range p.Untried {
		lines = append(lines, "? "+u)
	}
	return strings.Join(lines, "\n")
}
