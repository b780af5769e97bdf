package netdrv_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// TestNeverJoined: an endpoint that was created and not joined is an orphan after a grace period. Its device is free then, and not
// before: the engine may be slow.
func TestNeverJoined(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		before := m.kernel.String()
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
		m.must(err)
		m.after(40 * time.Second)
		m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n")
		m.restart() // an engine that is slow may join it yet
		m.after(50 * time.Second)
		m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n")
		m.after(11 * time.Second)
		m.wantKeys("net/n")
		m.wantHost(before)
		_, err = m.join("a", "n")
		wantError(t, err, "endpoint a-endpoint-0: record ep/n/a-endpoint-0123456789: not found")
		m.must(m.deleteFrom("a", "n"))
		m.mustRun("b", "n")
		m.end("b")
	})
}

// TestSlowEngine: an engine that starts hundreds of containers can take long between the calls for one of them, and before it moves its
// device. Only an engine that was restarted since, which shows by its asking for the capabilities, may have forgotten the endpoint.
func TestSlowEngine(t *testing.T) {
	t.Parallel()
	for name, joins := range map[string]bool{"before it joins": false, "before it moves the device": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				before := m.kernel.String()
				begin := func() {
					m.t.Helper()
					_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
					m.must(err)
					if joins {
						_, err = m.join("a", "n")
						m.must(err)
					}
				}
				begin()
				m.after(40 * time.Minute)
				join, err := m.join("a", "n")
				m.must(err)
				m.must(m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0"))
				m.where["a"] = place{"n", join.InterfaceName.SrcName, "eth0"}
				m.end("a")

				begin()
				m.after(time.Second)
				_, err = m.driver.GetCapabilities(m.t.Context(), &netdrv.Empty{})
				m.must(err)
				m.after(6 * time.Minute)
				m.wantKeys("net/n")
				m.wantHost(before)
			})
		})
	}
}

// TestDeleteNotWritten: the engine does not repeat a DeleteEndpoint that failed because the ledger could not be written. The reconciler
// repeats it in the first pass in which the ledger can be written.
func TestDeleteNotWritten(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.stop()
		full := &full{Store: m.store}
		m.startOn(full, m.kernel)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		before := m.kernel.String()
		source, _ := m.mustRun("a", "n")
		m.leave("a")
		m.must(m.kernel.MoveHome("a", "eth0", source))
		m.kernel.KillNS("a", 0)
		full.refuses.Store(true)
		wantError(t, m.deleteFrom("a", "n"), "ledger unavailable")
		m.after(3 * time.Minute) // the reconciler cannot write it either
		if n := m.counted("orphans"); n != 0 {
			t.Errorf("%d endpoints are counted as freed although the ledger is full", n)
		}
		full.refuses.Store(false)
		delete(m.where, "a")
		m.after(time.Minute + 5*time.Second) // until the next pass, and the binding of the VF that it begins
		m.wantKeys("net/n")
		m.wantHost(before)
		m.mustRun("b", "n")
		m.end("b")
	})
}

// full is a ledger that cannot be written while refuses is set.
type full struct {
	store.Store
	refuses atomic.Bool
}

func (f *full) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if f.refuses.Load() {
		return store.Result{}, store.ErrUnavailable
	}
	return f.Store.Txn(ctx, conds, then)
}

// TestCrashWhileRebinding: a VF is unbound and bound to restore its MAC. If a crash comes in between, it is bound again, and the
// driver_override of that is not taken for its original one.
func TestCrashWhileRebinding(t *testing.T) {
	t.Parallel()
	for name, writes := range map[string][][2]string{
		"unbound":              {{"driver/unbind", "0000:01:10.0"}},
		"unbound and override": {{"driver/unbind", "0000:01:10.0"}, {"driver_override", "igbvf"}},
		"override":             {{"driver_override", "igbvf"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				before := m.kernel.String()
				source, _ := m.mustRun("a", "n", "02:00:00:00:aa:aa")
				m.leave("a")
				m.must(m.kernel.MoveHome("a", "eth0", source))
				m.kernel.KillNS("a", 0)
				for _, w := range writes {
					m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:10.0/"+w[0], w[1]))
				}
				m.delete("a")
				m.after(time.Minute)
				m.wantHost(before)
				m.mustRemove("n")
				m.wantKeys()
			})
		})
	}
}

// TestLostDelete: a device that came home without a DeleteEndpoint is freed once it was seen in the host for the grace period without a
// break.
func TestLostDelete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hardware func(m *machine)
		options  []string
	}{
		"vf":                            {oneVF, []string{"netdevice=ens1f0", "vlan=4"}},
		"whole device":                  {nic, []string{"netdevice=ens2", "mode=passthrough"}},
		"whole device without ethernet": {ipoib, []string{"netdevice=ib0", "mode=passthrough"}},
		"whole device without pci": {func(m *machine) { m.kernel.AddVeth("tap0", "tap1") },
			[]string{"netdevice=tap0", "mode=passthrough"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				c.hardware(m)
				m.mustCreate("n", c.options...)
				before := m.kernel.String()
				source, _ := m.mustRun("a", "n")
				held := m.keys()
				m.leave("a")
				m.must(m.kernel.MoveHome("a", "eth0", source))
				m.after(4 * time.Minute)
				m.wantKeys(held...)

				// The endpoint is joined again, and its device moves into the container again: it is no orphan.
				again, err := m.join("a", "n")
				m.must(err)
				m.must(m.kernel.MoveToNS("a", again.InterfaceName.SrcName, "eth0"))
				m.after(2 * time.Minute)
				m.leave("a")
				m.must(m.kernel.MoveHome("a", "eth0", source))
				m.kernel.KillNS("a", 0)
				m.after(4 * time.Minute)
				m.wantKeys(held...)

				m.restart() // the grace period starts again with the process
				grace := 4 * time.Minute
				if name == "vf" { // which was lent while it was down: that it has had carrier shows that it has come back
					grace = 35 * time.Second
				}
				m.after(grace)
				m.wantKeys(held...)
				m.after(3 * time.Minute)
				m.wantKeys("net/n")
				m.wantHost(before)
				delete(m.where, "a")
				m.mustRun("b", "n")
				m.end("b")
			})
		})
	}
}

// TestInUseIsNotTouched: a device in a container is not touched, however long it is there, however often the driver is restarted, and
// although the engine sends no call.
func TestInUseIsNotTouched(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		nic(m)
		m.kernel.AddVeth("tap0", "tap1")
		m.mustCreate("vfs", "netdevice=ens1f0", "vlan=4")
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
		m.mustCreate("veth", "netdevice=tap0", "mode=passthrough")
		for _, network := range []string{"vfs", "whole", "veth"} {
			m.mustRun("on-"+network, network)
		}
		m.settled()
		host, ledger, calls := m.kernel.String(), m.ledger(), len(m.kernel.Calls())
		for range 3 {
			m.after(time.Hour)
			m.restart()
		}
		m.settled()
		m.wantHost(host)
		if l := m.ledger(); l != ledger {
			t.Errorf("the ledger is\n%s\nbut was\n%s", l, ledger)
		}
		if now := m.kernel.Calls(); len(now) != calls {
			t.Errorf("the driver made the kernel calls %v", now[calls:])
		}
		for _, network := range []string{"vfs", "whole", "veth"} {
			m.end("on-" + network)
			m.mustRemove(network)
		}
		m.wantKeys()
	})
}

// TestNetworkGoesFirst: a network is deleted while its containers have all VFs, because their DeleteEndpoints were lost. The call does
// not wait for each VF. When the VFs have come home all is as it was before.
func TestNetworkGoesFirst(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		for i := range 7 {
			m.mustRun(fmt.Sprintf("c%d", i), "n")
		}
		start := time.Now()
		m.mustRemove("n")
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if n := m.kernel.NumVFs("0000:01:00.0"); n != 7 {
			m.t.Fatalf("%d vfs exist, and containers have 7", n)
		}
		// The VLAN is free for another network at once, its VFs are not.
		m.mustCreate("m", "netdevice=ens1f0", "vlan=4")
		if _, _, err := m.run("late", "m"); err == nil {
			t.Error("a vf that is in a container was given to another")
		}
		m.mustRemove("m")
		m.after(2 * time.Minute)
		for i := range 7 {
			m.wantIn(fmt.Sprintf("0000:01:%02x.%x", 0x10+i*2/8, i*2%8), fmt.Sprintf("c%d", i))
			m.kernel.KillNS(fmt.Sprintf("c%d", i), time.Duration(i)*time.Second)
		}
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestEndedWhileDisabled: a container ends while the plugin is disabled, so that its DeleteEndpoint is lost. When the plugin is back, what
// the kernel says about the carrier of the device shows that it has come back from the container: it is free after 40 seconds. If it never
// had carrier there, five minutes are needed. The error of a container that needs the device says when it is free.
func TestEndedWhileDisabled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cable bool
		free  time.Duration
	}{
		"with carrier": {true, 40 * time.Second}, "without carrier": {false, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				before := m.kernel.String()
				m.mustRun("a", "n")
				if !c.cable { // as soon as it can be
					m.kernel.Plug("ens1f0", false)
				}
				m.after(time.Minute)
				m.stop()
				m.after(time.Minute)
				m.must(m.kernel.MoveHome("a", "eth0", "ens1f0v0"))
				m.kernel.KillNS("a", 0)
				delete(m.where, "a")
				m.after(time.Hour)
				m.start(m.store)
				started := time.Now()
				m.after(time.Second)
				_, _, err := m.run("b", "n")
				wantError(t, err, "ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is held by endpoint "+
					"a-endpoint-0 ("+ipOf("a")+") of network n, which the engine seems to have forgotten: if that stays so, it is free by "+
					started.Add(c.free).UTC().Format("2006-01-02 15:04:05 MST"))
				m.after(c.free - 5*time.Second)
				m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n")
				m.after(5 * time.Second)
				m.wantKeys("net/n")
				m.kernel.Plug("ens1f0", true)
				m.wantHost(before)
				m.mustRun("b", "n")
				m.end("b")
			})
		})
	}
}
