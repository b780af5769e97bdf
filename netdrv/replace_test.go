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
			"option replace: network 0123456789ab has 1 endpoints")
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
