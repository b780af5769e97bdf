package netdrv_test

import (
	"testing"
)

// Two networks of a swarm, and one of an engine's own, by the look of their IDs.
const (
	swarmNet = "gsrdxmp3439nimm8j8foysii3"
	otherNet = "f7kyh8zxvd8thdyb9rafmxjh8"
	localNet = "80fdea3b71663d16ee03829240b2cc2e1831cc96a99a1d00cc16a26f489b8f48"
)

// TestSwarmNetworkOutlivesNothing: a swarm's network that a power cut has left is in nobody's way after the reboot. The
// engine's own networks are still there after one.
func TestSwarmNetworkOutlivesNothing(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		m.mustCreate(localNet, "netdevice=ens1f0", "vlan=200")
		m.mustRun("a", swarmNet)
		m.reboot(func(m *machine) { m.kernel.AddPF(igb()) })
		m.mustCreate("new", "netdevice=ens1f0", "vlan=100")
		wantError(t, m.create("newer", "netdevice=ens1f0", "vlan=200"),
			"option vlan: 200 is used on ens1f0 (0000:01:00.0) by network 80fdea3b7166; choose another "+
				"(if the engine does not have that network, a crash has left it: say replace=80fdea3b7166)")
		m.mustRemove("new")
		m.mustRemove(localNet)
		m.settled()
		m.wantKeys()
	})
}

// TestSwarmNetworkGoesByItself: after a reboot nobody need come for a swarm's network to go.
func TestSwarmNetworkGoesByItself(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		m.mustRun("a", swarmNet)
		m.reboot(func(m *machine) { m.kernel.AddPF(igb()) })
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestSwarmNetworkInTheWay: when only the engine was killed, its swarm's network may be alive for all that the plugin
// knows. It goes when another one needs what it has, and when it has no endpoint.
func TestSwarmNetworkInTheWay(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		const refused = "option vlan: 100 is used on ens1f0 (0000:01:00.0) by network gsrdxmp3439n; choose another " +
			"(if the engine does not have that network, a crash has left it: say replace=gsrdxmp3439n)"
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // this process has made it
		m.mustRun("a", swarmNet)
		m.restart()
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // it has an endpoint
		m.end("a")
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // the engine knows it
		m.restart()
		m.settled()
		m.mustRun("b", swarmNet) // nothing was in its way
		m.end("b")
		m.mustCreate(otherNet, "netdevice=ens1f0", "vlan=100")
		m.mustRun("c", otherNet)
		m.end("c")
		m.mustRemove(otherNet)
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}
