package netdrv_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// A scenario is a sequence of operations that a crash interrupts at every step, and the hardware that it starts from.
type scenario struct {
	hardware func(m *machine)
	run      func(m *machine) // it ignores errors: the process dies in it
	end      func(m *machine) // after the crash; nil for what an engine and its user do
}

var errKilled = errors.New("killed")

// scenarios returns the operations that touch devices, each from start to end, among them a container on each NIC that was recorded.
func scenarios(t *testing.T) map[string]scenario {
	doing := func(inside func(m *machine, container string), options ...string) func(m *machine) {
		return func(m *machine) {
			r := &plugin.CreateNetworkRequest{}
			if slices.Contains(options, "host_access=yes") {
				r.IPv4Data = hostPool()
			}
			if m.createWith("n", r, options...) != nil {
				return
			}
			join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
			if err != nil || m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0") != nil {
				return
			}
			mtu := 9000
			_ = m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: mtu}, hw.LinkMTU)
			inside(m, "a")
			if err := m.kernel.MoveHome("a", "eth0", join.InterfaceName.SrcName); err != nil {
				m.t.Fatal(err)
			}
			m.kernel.KillNS("a", 0)
			m.deleteQuietly("a", "n")
			_ = m.remove("n")
		}
	}
	container := func(options ...string) func(m *machine) { return doing(func(*machine, string) {}, options...) }
	all := map[string]scenario{
		"vf of a fresh pf": {
			hardware: func(m *machine) { m.kernel.AddPF(igb()) },
			run:      container("netdevice=ens1f0", "vlan=100", "privileged=yes"),
		},
		"vf of several pfs": {
			hardware: func(m *machine) {
				m.kernel.AddPF(igb())
				pf := igb()
				pf.Name, pf.PCI, pf.MAC, pf.Up = "ens2f0", "0000:02:00.0", "52:54:00:aa:01:00", true
				m.kernel.AddPF(pf)
				m.settled()
			},
			run: container("netdevice=ens1f0,ens2f0", "vlan=100", "numvfs=2"),
		},
		"bond": {
			hardware: func(m *machine) { pool(m) },
			run:      container("netdevice=ens1f0,ens2f0", "vlan=100", "bond=active-backup", "numvfs=2"),
		},
		"vf that was there": {
			hardware: func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs = true, 2
				m.kernel.AddPF(pf)
				m.settled() // udev has named the VFs
			},
			run: container("netdevice=ens1f0", "vlan=100", "privileged=yes"),
		},
		"bond of vfs that were there": {
			hardware: func(m *machine) { boundVFs(m, 100*time.Millisecond) },
			run:      container("netdevice=ens1f0,ens2f0", "vlan=100", "bond=active-backup"),
		},
		"bond of vfs that were there, which udev names late": {
			hardware: func(m *machine) { boundVFs(m, 5*time.Second) },
			run:      container("netdevice=ens1f0,ens2f0", "vlan=100", "bond=active-backup"),
		},
		"vf of an infiniband pf": {
			hardware: func(m *machine) { m.kernel.AddPF(hca()) },
			run:      container("netdevice=ib0"),
		},
		"vf of an infiniband pf of its vendor's driver": {
			hardware: func(m *machine) {
				pf := hca()
				pf.Behaviour = hwtest.IPoIBVendorTree()
				m.kernel.AddPF(pf)
			},
			run: container("netdevice=ib0", "link_state=enable"),
		},
		"vf whose rdma device is moved": {
			hardware: func(m *machine) { m.kernel.RDMAExclusive = true; m.kernel.AddPF(connectX()); m.settled() },
			run: func(m *machine) {
				container("netdevice=ens1f0", "rdma=require")(m)
				m.kernel.KillNS("a", 0) // also if its container has not started
			},
		},
		"vf that is tuned": {
			hardware: func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.VFQueues = true, 2, 4
				m.kernel.AddPF(pf)
				m.settled()
			},
			run: container("netdevice=ens1f0", "queues=2", "ring_rx=512", "ethtool=gro=off,tso=off", "cores=2,5"),
		},
		"whole device that is tuned": {
			hardware: func(m *machine) {
				nic := ens2()
				nic.Up = false
				m.kernel.AddPF(nic)
			},
			run: container("netdevice=ens2", "mode=passthrough", "ring_tx=512", "ethtool=rx=off", "cores=numa"),
		},
		"whole device": {
			hardware: nic,
			run:      container("netdevice=ens2", "mode=passthrough"),
		},
		"whole device that is configured in every way": {
			hardware: configured,
			run:      container("netdevice=ens2", "mode=passthrough", "force=yes"),
		},
		"whole device that its container has set otherwise": {
			hardware: controlled,
			run:      doing((*machine).meddle, "netdevice=ens2", "mode=passthrough"),
		},
		"whole device with a child that the host does not see": {
			hardware: func(m *machine) {
				nic(m)
				m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("ens2").Index})
				m.kernel.InNS("").Move("mv0", "podman")
			},
			run: container("netdevice=ens2", "mode=passthrough", "force=yes"),
		},
		"whole device without a pci address": {
			hardware: func(m *machine) { m.kernel.AddVeth("tap0", "tap1"); m.kernel.AddAddrs("tap0", "192.0.2.7/24") },
			run:      container("netdevice=tap0", "mode=passthrough"),
		},
		"whole bond": {
			hardware: func(m *machine) { bond(m, false) },
			run:      container("netdevice=bond0", "mode=passthrough", "mtu=9000"),
		},
		"macvlan":           {hardware: nic, run: container("netdevice=ens2", "mode=macvlan")},
		"ipvlan":            {hardware: nic, run: container("netdevice=ens2", "mode=ipvlan", "mtu=1400")},
		"ipvlan in mode l3": {hardware: nic, run: container("netdevice=ens2", "mode=ipvlan", "ipvlan_mode=l3")},
		"ipvlan in mode l3, whose subnet is announced": {hardware: nic, run: container("netdevice=ens2", "mode=ipvlan", "ipvlan_mode=l3",
			"announce=subnet")},
		"macvlan on a vlan": {hardware: nic, run: container("netdevice=ens2", "mode=macvlan", "vlan=100")},
		"macvlan on a vlan, with access to the host": {
			hardware: nic,
			run:      container("netdevice=ens2", "mode=macvlan", "vlan=100", "host_access=yes"),
		},
		"vf in a vlan, with access to the host": {
			hardware: func(m *machine) { m.kernel.AddPF(igb()) },
			run:      container("netdevice=ens1f0", "vlan=100", "numvfs=2", "host_access=yes"),
		},
		"ipvlan on a vlan of a device without a pci address": {
			hardware: func(m *machine) {
				m.kernel.AddVeth("tap0", "tap1")
				m.must(m.kernel.SetLink(m.kernel.Link("tap0").Index, hw.LinkUp, hw.Link{Up: true}))
			},
			run: container("netdevice=tap0.7", "mode=ipvlan"),
		},
		"vf of a nic in switchdev mode": {
			hardware: func(m *machine) { pf := switchdev(); pf.VFs = 2; m.kernel.AddPF(pf); m.settled() },
			run:      container("netdevice=ens1f0"),
		},
		"vf of a nic in switchdev mode, in a bridge": {hardware: switched, run: container("netdevice=ens1f0", "bridge=br0", "vlan=100", "trunk=200-202")},
		"vf with a trunk": {hardware: trunking(hwtest.TrunkRange), run: container("netdevice=ens1f0", "trunk=100-102,300")},
		"vf of a program": {
			hardware: vfio,
			run:      program("netdevice=ens1f0", "vlan=100", "privileged=yes", "driver=vfio-pci"),
			end:      programEnds,
		},
		"vf of a fresh pf, of a program": {
			hardware: func(m *machine) { m.kernel.AddPF(igb()); m.kernel.LoadDriver("vfio-pci") },
			run:      program("netdevice=ens1f0", "numvfs=2", "driver=vfio-pci"),
			end:      programEnds,
		},
		"vf that is kept for programs": {
			hardware: func(m *machine) { vfio(m); m.cdi = m.t.TempDir() },
			run:      program("netdevice=ens1f0", "vlan=100", "driver=vfio-pci", "vfs=0", "cdi=dpdk"),
			end:      programEnds,
		},
		"vf of a fresh pf, that is kept for programs": {
			hardware: func(m *machine) { m.kernel.AddPF(igb()); m.kernel.LoadDriver("vfio-pci"); m.cdi = m.t.TempDir() },
			run:      program("netdevice=ens1f0", "numvfs=1", "driver=vfio-pci", "cdi=dpdk"),
			end:      programEnds,
		},
		"ipoib": {hardware: ipoib, run: container("netdevice=ib0", "mode=ipoib", "pkey=0x7")},
	}
	maps.Copy(all, ofOwner())
	for _, card := range hwtest.Cards(t) {
		options := []string{"netdevice=ens1f0", "numvfs=2"}
		for option, done := range asked(card.PF) {
			if done {
				options = append(options, option)
			}
		}
		all["vf of the recorded "+card.Name] = scenario{hardware: func(m *machine) { m.kernel.AddPF(card.PF) }, run: container(options...)}
	}
	return all
}

// boundVFs adds two PFs with a VF each that is bound since boot, with a MAC of its own. Each netdev that appears later is named by udev
// only after a while; more than 4 s is longer than package hw waits for it.
func boundVFs(m *machine, udevAfter time.Duration) {
	m.kernel.UdevAfter = udevAfter
	for i, name := range []string{"ens1f0", "ens2f0"} {
		pf := igb()
		pf.Name, pf.PCI, pf.MAC, pf.Up, pf.VFs = name, fmt.Sprintf("0000:%02x:00.0", i+1), "", true, 1
		m.kernel.AddPF(pf)
	}
	m.settled()
}

// deleteQuietly is DeleteEndpoint as the engine calls it: it ignores the error.
func (m *machine) deleteQuietly(container, network string) {
	ctx, cancel := m.call()
	defer cancel()
	_, _ = m.driver.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: network, EndpointID: endpoint(container)})
	_ = netdrv.AwaitReleases(ctx, m.driver)
}

// recovers runs a scenario in which the process dies as die arranges, and restarts the process. The engine then deletes the endpoint that it
// knows, and the user the network. The machine has to be as before, and the ledger empty.
func recovers(t *testing.T, l scenario, die func(m *machine), died func() bool) (again bool) {
	story(t, func(m *machine) {
		l.hardware(m)
		before := m.kernel.String()
		m.stop()
		die(m)
		l.run(m)
		m.stop()
		again = died()
		m.kernel.OnCall(nil)
		m.start(m.store)
		m.settled()
		if l.end != nil {
			l.end(m)
		} else {
			m.deleteQuietly("a", "n")
			if err := m.remove("n"); err != nil {
				t.Errorf("remove the network after the crash: %v", err)
			}
		}
		m.settled()
		m.wantHost(before)
		if keys := m.keys(); len(keys) > 0 {
			t.Errorf("left in the ledger: %v", keys)
		}
	})
	return again
}

// A step is a write to the ledger or a change of a device.
type step struct {
	write bool
	call  int64 // how many calls the engine had begun and ended
}

// A stepper is the ledger of a process that dies at one of its steps. It notes them.
type stepper struct {
	*storetest.Crash
	m     *machine
	mu    sync.Mutex // guards steps
	steps []step
}

// note notes a step.
func (s *stepper) note(write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step{write, s.m.calls.Load()})
}

// Txn implements store.Store.
func (s *stepper) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	s.note(true)
	return s.Crash.Txn(ctx, conds, then)
}

// crashes runs a scenario in which the process dies at its k-th step, and returns the steps that it made or tried to make.
func crashes(t *testing.T, l scenario, k int, fate storetest.Fate) (steps []step, died bool) {
	var s *stepper
	died = recovers(t, l, func(m *machine) {
		s = &stepper{Crash: storetest.NewCrash(m.store, k, fate), m: m}
		m.start(s)
		changes := s.Beside(store.NewMemory())
		m.kernel.OnCall(func(int, string) error {
			s.note(false)
			_, err := changes.Txn(m.ctx, nil, nil)
			return err
		})
	}, func() bool { return s.Dead() })
	return s.steps, died
}

// TestCrashAtEveryStep kills the process before each write to the ledger and before each change of a device. A process that dies after a step
// leaves what one leaves that dies before the next step, unless the engine does something in between: for that it is also killed after the last
// write of each call, which is then not answered.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, l := range scenarios(t) {
		var steps []step
		for k, again := 1, true; again; k++ {
			again = false // unless the subtest runs: it may be filtered out
			t.Run(fmt.Sprintf("%s/%d", name, k), func(t *testing.T) { steps, again = crashes(t, l, k, storetest.Lost) })
		}
		for i, s := range steps {
			if s.write && (i+1 == len(steps) || steps[i+1].call != s.call) {
				t.Run(fmt.Sprintf("%s/%d unanswered", name, i+1), func(t *testing.T) { crashes(t, l, i+1, storetest.Unanswered) })
			}
		}
	}
}

// deadWith is a ledger that refuses all writes once the process is dead.
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

// startDying starts a process that is killed at its k+1-th change of a device.
func (m *machine) startDying(k int) (dead *atomic.Bool) {
	dead = &atomic.Bool{}
	m.start(deadWith{m.store, dead})
	last := len(m.kernel.Calls()) + k
	m.kernel.OnCall(func(n int, _ string) error {
		if n > last {
			dead.Store(true)
			return errKilled
		}
		return nil
	})
	return dead
}

// TestFailureAtEveryKernelCall lets each change of a device fail once. The process lives on, and undoes what it began.
func TestFailureAtEveryKernelCall(t *testing.T) {
	t.Parallel()
	for name, l := range scenarios(t) {
		for k, again := 1, true; again; k++ {
			again = false // unless the subtest runs: it may be filtered out
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

// TestCrashWhileBinding kills the process at each change while it attaches a VF that had no driver: the driver_override that it needs for
// binding never stays.
func TestCrashWhileBinding(t *testing.T) {
	t.Parallel()
	for k, again := 0, true; again; k++ {
		again = false // unless the subtest runs: it may be filtered out
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up = true
				m.kernel.AddPF(pf)
				for _, w := range [][2]string{{"sriov_drivers_autoprobe", "0"}, {"sriov_numvfs", "2"}} {
					m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:00.0/"+w[0], w[1]))
				}
				m.settled()
				m.stop()
				dead := m.startDying(k)
				scenarios(t)["vf that was there"].run(m)
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

// TestStartAfterCrash kills the process at each change of a device while a bond is made of VFs that are bound since boot. The engine or the
// user starts another container at once, while the first one's devices are on their way home. The VFs get back their names, MACs and driver.
func TestStartAfterCrash(t *testing.T) {
	t.Parallel()
	options := []string{"netdevice=ens1f0,ens2f0", "vlan=100", "bond=active-backup"}
	for _, udevAfter := range []time.Duration{0, 100 * time.Millisecond, 5 * time.Second} {
		for _, pause := range []time.Duration{0, 120 * time.Millisecond, 2 * time.Second} {
			for k, again := 0, true; again; k++ {
				again = false // unless the subtest runs: it may be filtered out
				t.Run(fmt.Sprintf("%s/%s/%d", udevAfter, pause, k), func(t *testing.T) {
					story(t, func(m *machine) {
						boundVFs(m, udevAfter)
						before := m.kernel.String()
						m.mustCreate("n", options...)
						m.stop()
						dead := m.startDying(k)
						_, _, _ = m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
						again = dead.Load()
						m.stop()
						m.kernel.OnCall(nil)
						m.start(m.store)
						m.after(pause)
						m.deleteQuietly("a", "n")
						var err error
						for range 20 {
							if _, _, err = m.run("b", "n"); err == nil {
								break
							}
							m.after(pause)
						}
						m.must(err)
						m.after(pause)
						m.end("b")
						m.settled()
						m.mustRemove("n")
						m.settled()
						m.wantHost(before)
						m.wantKeys()
					})
				})
			}
		}
	}
}
