package netdrv_test

import (
	"context"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv"
)

// TestEmptyBodies: the engine repeats a request that was not answered with an empty body. It is refused, and nothing changes.
func TestEmptyBodies(t *testing.T) {
	t.Parallel()
	const noID = "request names no network or endpoint"
	verbs := map[string]struct {
		call func(ctx context.Context, d *netdrv.Driver) error
		want string
	}{
		"GwAllocCheck": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.GwAllocCheck(ctx, &netdrv.GwAllocCheckRequest{})
			return err
		}, "option netdevice: missing; say which device to use: -o netdevice=NAME"},
		"CreateNetwork": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.CreateNetwork(ctx, &plugin.CreateNetworkRequest{})
			return err
		}, noID},
		"DeleteNetwork": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.DeleteNetwork(ctx, &plugin.DeleteNetworkRequest{})
			return err
		}, noID},
		"CreateEndpoint": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{})
			return err
		}, noID},
		"CreateEndpoint without an endpoint": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n"})
			return err
		}, noID},
		"Join": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.Join(ctx, &plugin.JoinRequest{})
			return err
		}, noID},
		"DeleteEndpoint": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{})
			return err
		}, noID},
		"DeleteEndpoint without an endpoint": {func(ctx context.Context, d *netdrv.Driver) error {
			_, err := d.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: "n"})
			return err
		}, noID},
	}
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		host, ledger := m.kernel.String(), m.ledger()
		for name, v := range verbs {
			ctx, cancel := m.call()
			err := v.call(ctx, m.driver)
			cancel()
			if err == nil || err.Error() != v.want {
				t.Errorf("%s: error is %v, want %s", name, err, v.want)
			}
		}
		m.must(m.leaveFrom("", ""))
		m.wantHost(host)
		if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
			t.Errorf("the ledger has changed:\n%s", diff)
		}
		m.end("a")
	})
}

// TestCreateNetworkAgain: a swarm creates its networks again after each restart of the engine, with the same ID.
func TestCreateNetworkAgain(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		other := igb()
		other.Name, other.PCI, other.MAC = "ens3f0", "0000:03:00.0", "52:54:00:cc:00:00"
		m.kernel.AddPF(other)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		host, ledger := m.kernel.String(), m.ledger()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.wantHost(host)
		if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
			t.Errorf("the same call again has changed the ledger:\n%s", diff)
		}

		wantError(t, m.create("n", "netdevice=ens1f0", "vlan=5000"),
			`option vlan: "5000" is not allowed; allowed: 0 to 4094, or keep`)
		if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
			t.Errorf("a refused call has changed the ledger:\n%s", diff)
		}

		m.mustCreate("n", "netdevice=ens1f0", "vlan=200") // its former VLAN is free
		m.mustRun("a", "n")
		states := m.vfStates("ens1f0")
		if states[0].VLAN != (hw.VLAN{ID: 200}) {
			t.Errorf("vf 0 is %+v; want vlan 200", states[0])
		}
		m.mustCreate("n", "netdevice=ens1f0", "vlan=200")
		wantError(t, m.create("n", "netdevice=ens1f0", "vlan=300"),
			"network n: is there already, with other options and 1 endpoints")
		m.end("a")

		m.mustCreate("n", "netdevice=ens3f0") // the VFs of the first PF are not needed any more
		m.settled()
		if a, b := m.kernel.NumVFs("0000:01:00.0"), m.kernel.NumVFs("0000:03:00.0"); a != 0 || b != 7 {
			t.Errorf("%d and %d vfs, want 0 and 7", a, b)
		}
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestCreateEndpointAgain: the answer is that of the first time, whatever has happened since.
func TestCreateEndpointAgain(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		i := plugin.EndpointInterface{Address: "10.0.0.2/24"}
		mac, err := m.createEndpoint("a", "n", i)
		m.must(err)
		if mac == "" {
			t.Error("no mac was answered")
		}
		calls, ledger := len(m.kernel.Calls()), m.ledger()
		again := func(when string) {
			t.Helper()
			if got, err := m.createEndpoint("a", "n", i); err != nil || got != mac {
				t.Errorf("%s: answered %q, %v; want %q as before", when, got, err, mac)
			}
		}
		again("at once")
		m.restart()
		again("after a restart")
		if n := len(m.kernel.Calls()); n != calls || ledger != m.ledger() {
			t.Errorf("%d calls to the kernel, want %d; ledger\n%s\nwas\n%s", n, calls, m.ledger(), ledger)
		}
		join, err := m.join("a", "n")
		m.must(err)
		again("after join")
		m.must(m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0"))
		again("in the container")
		m.where["a"] = place{"n", join.InterfaceName.SrcName, "eth0"}
		m.end("a")

		// A MAC that the engine has given is not answered: the engine would refuse it as a change.
		i.MacAddress = "02:00:00:00:00:42"
		for range 2 {
			if got, err := m.createEndpoint("b", "n", i); err != nil || got != "" {
				t.Errorf("answered %q, %v; want no mac", got, err)
			}
		}
		m.must(m.deleteFrom("b", "n"))
		m.wantKeys("net/n", "pf/0000:01:00.0", "sticky/n/30323a30303a30303a30303a30303a3432")
	})
}

// TestJoinAgain: Join is answered again while the device is in the host.
func TestJoinAgain(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		_, err := m.join("a", "n")
		wantError(t, err, "endpoint a-endpoint-0: record ep/n/a-endpoint-0123456789: not found")
		_, err = m.join("a", "x")
		wantError(t, err, "network x: the plugin does not know it (was the plugin removed and installed again?); "+
			"remove the network and create it again: record net/x: not found")
		first, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
		m.must(err)
		ledger := m.ledger()
		again, err := m.join("a", "n")
		m.must(err)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("answered differently:\n%s", diff)
		}
		if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
			t.Errorf("the ledger has changed:\n%s", diff)
		}
		m.must(m.kernel.MoveToNS("a", first.InterfaceName.SrcName, "eth0"))
		_, err = m.join("a", "n")
		wantError(t, err, "vf 0 of ens1f0 (0000:01:10.0): cannot be moved into the container: "+
			"0000:01:10.0: device is in another network namespace")
		m.wantIn("0000:01:10.0", "a")
		m.where["a"] = place{"n", first.InterfaceName.SrcName, "eth0"}
		m.end("a")
	})
}

// TestLeaveIsNoEnd: the engine calls Leave without a successful Join (engine 29), twice, and before a Join of the same endpoint (containers
// with links, every engine).
func TestLeaveIsNoEnd(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=7")
		m.must(m.leaveFrom("a", "n"))
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
		m.must(err)
		m.must(m.leaveFrom("a", "n"))
		first, err := m.join("a", "n")
		m.must(err)
		source := first.InterfaceName.SrcName
		for range 3 {
			m.must(m.kernel.MoveToNS("a", source, "eth0"))
			m.must(m.leaveFrom("a", "n"))
			m.must(m.leaveFrom("a", "n"))
			m.must(m.kernel.MoveHome("a", "eth0", source))
			again, err := m.join("a", "n")
			m.must(err)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("answered differently:\n%s", diff)
			}
		}
		states := m.vfStates("ens1f0")
		if states[0].VLAN.ID != 7 {
			t.Errorf("vf 0 is %+v; want it to be in vlan 7 all the time", states[0])
		}
		m.must(m.deleteFrom("a", "n"))
		m.wantKeys("net/n", "pf/0000:01:00.0")
	})
}

// TestDeleteAgain: deleting what was deleted, or never existed, succeeds.
func TestDeleteAgain(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		nic(m)
		before := m.kernel.String()
		for _, options := range [][]string{{"netdevice=ens1f0"}, {"netdevice=ens2", "mode=passthrough"}} {
			m.must(m.deleteFrom("a", "n"))
			m.must(m.remove("n"))
			m.mustCreate("n", options...)
			m.must(m.deleteFrom("a", "n"))

			_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{}) // never joined, never left
			m.must(err)
			m.must(m.deleteFrom("a", "n"))
			m.must(m.deleteFrom("a", "n"))

			source, _ := m.mustRun("a", "n") // never left
			m.must(m.kernel.MoveHome("a", "eth0", source))
			m.kernel.KillNS("a", 0)
			m.must(m.deleteFrom("a", "n"))
			host, ledger := m.kernel.String(), m.ledger()
			m.must(m.deleteFrom("a", "n"))
			m.wantHost(host)
			if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
				t.Errorf("the ledger has changed:\n%s", diff)
			}
			m.mustRemove("n")
			m.mustRemove("n")
			m.wantHost(before)
			m.wantKeys()
		}
	})
}
