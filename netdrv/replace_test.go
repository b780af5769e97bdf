package netdrv_test

import (
	"testing"
	"time"
)

// TestReplace: the option replace removes a stale network that a crash has left. The new network gets its VFs. A network with endpoints is
// not removed.
func TestReplace(t *testing.T) {
	t.Parallel()
	const lost, next = "0123456789abcdef", "fedcba9876543210"
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate(lost, "netdevice=ens1f0", "vlan=4", "numvfs=2")
		m.mustRun("a", lost)
		wantError(t, m.create(next, "netdevice=ens1f0", "vlan=4", "replace=0123456789ab"),
			"option replace: network 0123456789ab has 1 endpoints, and endpoint a-endpoint-0 may be in use; if its container has ended, "+
				"restart the plugin, and try again when its device has been home for a moment")
		m.end("a")
		wantError(t, m.create(next, "netdevice=ens1f0", "vlan=4"), "option vlan: 4 is used on ens1f0 (0000:01:00.0) by network "+
			"0123456789ab; choose another"+left("0123456789ab"))
		wantError(t, m.create(next, "netdevice=ens1f0", "vlan=4", "replace=0123"),
			`option replace: "0123" is not allowed; allowed: ID of a network, or its first 12 characters`)
		m.mustCreate(next, "netdevice=ens1f0", "vlan=4", "replace=0123456789ab")
		m.wantKeys("net/"+next, "pf/0000:01:00.0")
		m.mustCreate(next, "netdevice=ens1f0", "vlan=4", "replace=0123456789ab") // a swarm creates it again
		m.mustRun("b", next)
		m.end("b")
		m.mustRemove(next)
		m.after(time.Minute)
		m.wantKeys()
		m.wantHost(before)
	})
}

// TestReplaceElsewhere: VFs of a replaced network are removed from PFs where they are not needed any more.
func TestReplaceElsewhere(t *testing.T) {
	t.Parallel()
	const lost = "0123456789abcdef"
	story(t, func(m *machine) {
		pool(m)
		before := m.kernel.String()
		m.mustCreate(lost, "netdevice=ens1f0,ens2f0", "vlan=4", "numvfs=2")
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4", "numvfs=2", "replace="+lost)
		m.after(2 * time.Minute)
		m.wantKeys("net/n", "pf/0000:01:00.0")
		m.mustRemove("n")
		m.after(time.Minute)
		m.wantHost(before)
	})
}

// TestReplaceWithForgottenEndpoint: an endpoint does not keep a network from being replaced if its container ended while the plugin was
// disabled. It does while its device is in a container.
func TestReplaceWithForgottenEndpoint(t *testing.T) {
	t.Parallel()
	const lost, next = "0123456789abcdef", "fedcba9876543210"
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate(lost, "netdevice=ens1f0", "vlan=4", "numvfs=2")
		m.mustRun("a", lost)
		m.mustRun("b", lost)
		m.after(time.Minute)
		m.stop()
		m.kernel.KillNS("a", 0)
		m.after(time.Minute)
		m.start(m.store)
		m.after(time.Second)
		wantError(t, m.create(next, "netdevice=ens1f0", "vlan=4", "replace=0123456789ab"), "option replace: network 0123456789ab has "+
			"2 endpoints, and endpoint b-endpoint-0 may be in use; if its container has ended, restart the plugin, and try again when its "+
			"device has been home for a moment")
		m.stop()
		m.kernel.KillNS("b", 0)
		m.start(m.store)
		m.after(time.Second)
		m.mustCreate(next, "netdevice=ens1f0", "vlan=4", "replace=0123456789ab")
		m.where = map[string]place{}
		m.mustRun("a", next)
		m.mustRun("b", next)
		m.end("a")
		m.end("b")
		m.mustRemove(next)
		m.after(time.Minute)
		m.wantKeys()
		m.wantHost(before)
	})
}
