package netdrv_test

import (
	"testing"
)

// IDs of two swarm networks, and of an engine's own network.
const (
	swarmNet = "gsrdxmp3439nimm8j8foysii3"
	otherNet = "f7kyh8zxvd8thdyb9rafmxjh8"
	localNet = "80fdea3b71663d16ee03829240b2cc2e1831cc96a99a1d00cc16a26f489b8f48"
)

// TestSwarmNetworkAfterReboot: a swarm's network from before a power cut does not block others after the reboot. An engine's own networks
// survive one.
func TestSwarmNetworkAfterReboot(t *testing.T) {
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

// TestSwarmNetworkGoesByItself: after a reboot a swarm's network is removed without a call.
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

// TestSwarmNetworkInTheWay: if only the engine was killed the plugin cannot know whether a swarm's network is stale. It is replaced by one
// that conflicts with it, if it has no endpoint.
func TestSwarmNetworkInTheWay(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		const refused = "option vlan: 100 is used on ens1f0 (0000:01:00.0) by network gsrdxmp3439n; choose another " +
			"(if the engine does not have that network, a crash has left it: say replace=gsrdxmp3439n)"
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // this process has created it
		m.mustRun("a", swarmNet)
		m.restart()
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // it has an endpoint
		m.end("a")
		m.mustCreate(swarmNet, "netdevice=ens1f0", "vlan=100")
		wantError(t, m.create(otherNet, "netdevice=ens1f0", "vlan=100"), refused) // the engine knows it
		m.restart()
		m.settled()
		m.mustRun("b", swarmNet) // nothing has replaced it
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
