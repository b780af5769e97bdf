package netdrv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// A life is a story that is cut short at every step: what it starts from, and what it does.
type life struct {
	hardware func(m *machine)
	live     func(m *machine) // errors are what happens when the process dies
}

var errKilled = errors.New("killed")

// lives are the operations that touch devices, each from start to end.
func lives() map[string]life {
	container := func(options ...string) func(m *machine) {
		return func(m *machine) {
			if m.create("n", options...) != nil {
				return
			}
			join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
			if err != nil || m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0") != nil {
				return
			}
			mtu := 9000
			_ = m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: mtu}, hw.LinkMTU)
			if err := m.kernel.MoveHome("a", "eth0", join.InterfaceName.SrcName); err != nil {
				m.t.Fatal(err)
			}
			m.kernel.KillNS("a", 0)
			m.deleteQuietly("a", "n")
			_ = m.remove("n")
		}
	}
	return map[string]life{
		"vf of a fresh pf": {
			hardware: func(m *machine) { m.kernel.AddPF(igb()) },
			live:     container("netdevice=ens1f0", "vlan=100", "privileged=yes"),
		},
		"vf of several pfs": {
			hardware: func(m *machine) {
				m.kernel.AddPF(igb())
				pf := igb()
				pf.Name, pf.PCI, pf.MAC, pf.Up = "ens2f0", "0000:02:00.0", "52:54:00:aa:01:00", true
				m.kernel.AddPF(pf)
				m.settled()
			},
			live: container("netdevice=ens1f0,ens2f0", "vlan=100", "numvfs=2"),
		},
		"bond": {
			hardware: func(m *machine) { pool(m) },
			live:     container("netdevice=ens1f0,ens2f0", "vlan=100", "bond=active-backup", "numvfs=2"),
		},
		"vf that was there": {
			hardware: func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs = true, 2
				m.kernel.AddPF(pf)
				m.settled() // until udev has named the VFs
			},
			live: container("netdevice=ens1f0", "vlan=100", "privileged=yes"),
		},
		"vf of an infiniband pf": {
			hardware: func(m *machine) { m.kernel.AddPF(hca()) },
			live:     container("netdevice=ib0"),
		},
		"vf of an infiniband pf of its vendor's driver": {
			hardware: func(m *machine) {
				pf := hca()
				pf.VendorTree = true
				m.kernel.AddPF(pf)
			},
			live: container("netdevice=ib0", "link_state=enable"),
		},
		"vf that is tuned": {
			hardware: func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.VFQueues = true, 2, 4
				m.kernel.AddPF(pf)
				m.settled()
			},
			live: container("netdevice=ens1f0", "queues=2", "ring_rx=512", "ethtool=gro=off,tso=off", "cores=2,5"),
		},
		"whole device that is tuned": {
			hardware: func(m *machine) {
				nic := ens2()
				nic.Up = false
				m.kernel.AddPF(nic)
			},
			live: container("netdevice=ens2", "mode=passthrough", "ring_tx=512", "ethtool=rx=off", "cores=numa"),
		},
		"whole device": {
			hardware: nic,
			live:     container("netdevice=ens2", "mode=passthrough"),
		},
		"whole device without a pci address": {
			hardware: func(m *machine) { m.kernel.AddVeth("tap0", "tap1"); m.kernel.AddAddrs("tap0", "192.0.2.7/24") },
			live:     container("netdevice=tap0", "mode=passthrough"),
		},
		"whole bond": {
			hardware: func(m *machine) { bond(m, false) },
			live:     container("netdevice=bond0", "mode=passthrough", "mtu=9000"),
		},
		"macvlan": {hardware: nic, live: container("netdevice=ens2", "mode=macvlan")},
		"ipvlan":  {hardware: nic, live: container("netdevice=ens2", "mode=ipvlan", "mtu=1400")},
		"ipoib":   {hardware: ipoib, live: container("netdevice=ib0", "mode=ipoib", "pkey=0x7")},
	}
}

// deleteQuietly is DeleteEndpoint as the engine does it: it does not care for the answer.
func (m *machine) deleteQuietly(container, network string) {
	ctx, cancel := m.call()
	defer cancel()
	_, _ = m.driver.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: network, EndpointID: endpoint(container)})
}

// recovers kills the process where dies says, starts it again, has the engine repeat what it repeats - it deletes what
// it knows, and the user removes the network - and then the machine has to be as it was, and the ledger empty.
func recovers(t *testing.T, l life, die func(m *machine), died func() bool) (again bool) {
	story(t, func(m *machine) {
		l.hardware(m)
		before := m.kernel.String()
		m.stop()
		die(m)
		l.live(m)
		again = died()
		m.stop()
		m.kernel.OnCall(nil)
		m.start(m.store)
		m.settled()
		m.deleteQuietly("a", "n")
		if err := m.remove("n"); err != nil {
			t.Errorf("remove the network after the crash: %v", err)
		}
		m.settled()
		if after := m.kernel.String(); after != before {
			t.Errorf("the host is\n%s\nbut was\n%s", after, before)
		}
		if keys := m.keys(); len(keys) > 0 {
			t.Errorf("left in the ledger: %v", keys)
		}
	})
	return again
}

// TestCrashAtEveryTransaction kills the process at each write of the ledger, both before and after it took effect.
func TestCrashAtEveryTransaction(t *testing.T) {
	t.Parallel()
	for name, l := range lives() {
		for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
			for k, again := 1, true; again; k++ {
				t.Run(fmt.Sprintf("%s/%s/%d", name, fate, k), func(t *testing.T) {
					var crash *storetest.Crash
					again = recovers(t, l, func(m *machine) {
						crash = storetest.NewCrash(m.store, k, fate)
						m.start(crash)
						dieWith(m.kernel, crash)
					}, func() bool { return crash.Dead() })
				})
			}
		}
	}
}

// dieWith makes a process whose ledger is dead unable to touch devices too.
func dieWith(k *hwtest.Kernel, crash *storetest.Crash) {
	k.OnCall(func(int, string) error {
		if crash.Dead() {
			return errKilled
		}
		return nil
	})
}

// deadWith is a ledger that refuses everything once the process is dead.
type deadWith struct {
	store.Store
	dead *atomic.Bool
}

func (d deadWith) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if d.dead.Load() {
		return store.Result{}, errKilled
	}
	return d.Store.Txn(ctx, conds, then)
}

// TestCrashAtEveryKernelCall kills the process at each change that it makes to a device.
func TestCrashAtEveryKernelCall(t *testing.T) {
	t.Parallel()
	for name, l := range lives() {
		for k, again := 0, true; again; k++ {
			t.Run(fmt.Sprintf("%s/%d", name, k), func(t *testing.T) {
				var dead atomic.Bool
				again = recovers(t, l, func(m *machine) {
					m.start(deadWith{m.store, &dead})
					last := len(m.kernel.Calls()) + k
					m.kernel.OnCall(func(n int, _ string) error {
						if n > last {
							dead.Store(true)
							return errKilled
						}
						return nil
					})
				}, dead.Load)
			})
		}
	}
}

// TestFailureAtEveryKernelCall has each change fail once, with the process living on: it undoes what it began.
func TestFailureAtEveryKernelCall(t *testing.T) {
	t.Parallel()
	for name, l := range lives() {
		for k, again := 1, true; again; k++ {
			t.Run(fmt.Sprintf("%s/%d", name, k), func(t *testing.T) {
				var m0 *machine
				last := 0
				again = recovers(t, l, func(m *machine) {
					m0 = m
					m.start(m.store)
					last = len(m.kernel.Calls()) + k
					m.kernel.FailAt(k, &hw.Error{Dev: "somewhere", Err: hw.ErrBusy})
				}, func() bool { return len(m0.kernel.Calls()) >= last })
			})
		}
	}
}

// TestCrashWhileBinding kills the process at each change while it lends a VF that was there, but bound to no driver: the
// driver_override that binding it needs for a moment never stays.
func TestCrashWhileBinding(t *testing.T) {
	t.Parallel()
	for k, again := 0, true; again; k++ {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up = true
				m.kernel.AddPF(pf)
				for _, w := range [][2]string{{"sriov_drivers_autoprobe", "0"}, {"sriov_numvfs", "2"}} {
					m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:00.0/"+w[0], w[1]))
				}
				m.settled()
				var dead atomic.Bool
				m.stop()
				m.start(deadWith{m.store, &dead})
				last := len(m.kernel.Calls()) + k
				m.kernel.OnCall(func(n int, _ string) error {
					if n <= last {
						return nil
					}
					dead.Store(true)
					return errKilled
				})
				lives()["vf that was there"].live(m)
				again = dead.Load()
				m.stop()
				m.kernel.OnCall(nil)
				m.start(m.store)
				m.settled()
				m.deleteQuietly("a", "n")
				m.must(m.remove("n"))
				m.settled()
				if after := m.kernel.String(); strings.Contains(after, "override igbvf") || strings.Contains(after, "vlan 100") {
					t.Errorf("the host is\n%s", after)
				}
				if keys := m.keys(); len(keys) > 0 {
					t.Errorf("left in the ledger: %v", keys)
				}
			})
		})
	}
}
