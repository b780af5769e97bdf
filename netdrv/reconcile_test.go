package netdrv_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// counted returns one of the driver's counters.
func (m *machine) counted(what string) int64 {
	m.t.Helper()
	r, err := m.driver.Counters(m.t.Context(), &netdrv.Empty{})
	m.must(err)
	return r.Counters[what]
}

// TestRestoredWhenItComesHome: a device that comes home late is restored when the kernel reports it, and not only in the next pass.
func TestRestoredWhenItComesHome(t *testing.T) {
	t.Parallel()
	for name, hardware := range map[string]struct {
		make    func(m *machine)
		options []string
	}{
		"vf":           {oneVF, []string{"netdevice=ens1f0", "vlan=4"}},
		"whole device": {nic, []string{"netdevice=ens2", "mode=passthrough"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				hardware.make(m)
				m.mustCreate("n", hardware.options...)
				before := m.kernel.String()
				m.mustRun("a", "n")
				m.leave("a")
				m.delete("a")
				m.after(30*time.Minute + 17*time.Second)
				m.kernel.KillNS("a", 0)
				m.after(time.Second)
				m.wantKeys("net/n")
				m.wantHost(before)
			})
		})
	}
}

// TestBackOff: a device that cannot be restored is quarantined, and tried again after one minute, two, four and so on. When it can be
// restored it is free.
func TestBackOff(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		before := m.kernel.String()
		m.mustRun("a", "n")
		var broken atomic.Bool
		broken.Store(true)
		m.kernel.OnCall(func(_ int, what string) error {
			if broken.Load() && what == "set ens1f0 vf 0: set vlan 0" {
				return hw.ErrBusy
			}
			return nil
		})
		m.end("a")
		m.after(11 * time.Second)
		if n := m.counted("devices_quarantined"); n != 1 {
			t.Fatalf("quarantined %d times", n)
		}
		for _, c := range []struct {
			after time.Duration
			tries int64
		}{{50 * time.Second, 0}, {20 * time.Second, 1}, {100 * time.Second, 1}, {30 * time.Second, 2}, {200 * time.Second, 2},
			{50 * time.Second, 3}, {24 * time.Hour, 29}} {
			m.after(c.after)
			if n := m.counted("tried_again"); n != c.tries {
				t.Errorf("%s later it was tried %d times, want %d", c.after, n, c.tries)
			}
		}
		_, _, err := m.run("b", "n")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is quarantined: "+
			"vf 0 of ens1f0 (0000:01:10.0): set vlan 0 with igb: device busy")
		broken.Store(false)
		m.after(time.Hour)
		m.wantKeys("net/n")
		m.wantHost(before)
		m.mustRun("b", "n")
		m.end("b")
	})
}

// deaf is a kernel whose links cannot be read while fails is set.
type deaf struct {
	hw.Kernel
	fails *atomic.Bool
}

func (d deaf) Links() ([]hw.Link, error) {
	if d.fails.Load() {
		return nil, hw.ErrDeviceFault
	}
	return d.Kernel.Links()
}

func (d deaf) LinkAt(index int) (hw.Link, error) {
	if d.fails.Load() {
		return hw.Link{}, hw.ErrDeviceFault
	}
	return d.Kernel.LinkAt(index)
}

func (d deaf) LinkNamed(name string) (hw.Link, error) {
	if d.fails.Load() {
		return hw.Link{}, hw.ErrDeviceFault
	}
	return d.Kernel.LinkNamed(name)
}

// unread is a ledger that cannot be read while fails is set.
type unread struct {
	store.Store
	fails *atomic.Bool
}

func (u unread) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if u.fails.Load() {
		return store.ErrUnavailable
	}
	return u.Store.Range(ctx, prefix, fn)
}

// TestNoVerdictWithoutFacts: while the kernel or the ledger cannot be read nothing is freed, however long that takes, and one warning an
// hour is logged. The grace period starts again then.
func TestNoVerdictWithoutFacts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kernel", "ledger"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				var kernel, ledger atomic.Bool
				oneVF(m)
				m.stop()
				m.startOn(unread{m.store, &ledger}, deaf{m.kernel, &kernel})
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				before := m.kernel.String()
				source, _ := m.mustRun("a", "n")
				held := m.keys()
				m.leave("a")
				m.must(m.kernel.MoveHome("a", "eth0", source)) // and DeleteEndpoint is lost
				m.after(4 * time.Minute)
				kernel.Store(name == "kernel")
				ledger.Store(name == "ledger")
				m.after(10 * time.Hour)
				m.wantKeys(held...)
				if n := m.counted("orphans"); n != 0 {
					t.Errorf("%d endpoints were freed as orphans", n)
				}
				if n := m.counted("left_alone"); name == "ledger" && n != 10 {
					t.Errorf("%d warnings, want one an hour", n)
				}
				kernel.Store(false)
				ledger.Store(false)
				m.kernel.KillNS("a", 0)
				m.after(2 * time.Hour) // no engine was restarted that could have forgotten it
				m.wantKeys("net/n")
				m.wantHost(before)
				if n := m.counted("orphans"); n != 1 {
					t.Errorf("%d endpoints were freed as orphans, want 1", n)
				}
				delete(m.where, "a")
			})
		})
	}
}

// busy is a ledger to which writing the network other takes long.
type busy struct {
	store.Store
	takes time.Duration
}

func (b busy) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if slices.ContainsFunc(then, func(o store.Op) bool { return o.Key == "net/other" }) {
		<-time.After(b.takes)
	}
	return b.Store.Txn(ctx, conds, then)
}

// TestBesideACall: a call on networks keeps the reconciler from removing VFs. They are removed right after the call, and not a minute
// later.
func TestBesideACall(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.kernel.AddPF(ens2())
		m.stop()
		m.start(busy{m.store, 90 * time.Second})
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		var broken atomic.Bool
		broken.Store(true)
		m.kernel.OnCall(func(_ int, what string) error {
			if broken.Load() && strings.Contains(what, "sriov_drivers_autoprobe") {
				return hw.ErrBusy
			}
			return nil
		})
		if err := m.remove("n"); err == nil {
			t.Fatal("the vfs were removed")
		}
		broken.Store(false)
		_ = m.create("other", "netdevice=ens2", "mode=macvlan") // it may time out
		m.after(time.Second)
		for _, key := range m.keys() {
			if strings.HasPrefix(key, "pf/") {
				t.Errorf("the ledger still has %s", key)
			}
		}
	})
}

// TestTakenByAVirtualMachine: an administrator binds a VF to vfio-pci while it is on its way home. It is waited for, and one warning says
// why.
func TestTakenByAVirtualMachine(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.kernel.LoadDriver("vfio-pci")
		const vf = "bus/pci/devices/0000:01:10.0/"
		m.must(m.kernel.WriteAttr(vf+"driver/unbind", "0000:01:10.0"))
		m.must(m.kernel.WriteAttr(vf+"driver_override", "vfio-pci"))
		m.must(m.kernel.WriteAttr("bus/pci/drivers_probe", "0000:01:10.0"))
		m.must(m.deleteFrom("a", "n"))
		m.kernel.KillNS("a", 0)
		m.settled()
		if n := m.counted("left_alone"); n != 1 {
			t.Errorf("%d warnings in ten minutes, want one", n)
		}
		m.must(m.kernel.WriteAttr(vf+"driver/unbind", "0000:01:10.0"))
		m.must(m.kernel.WriteAttr(vf+"driver_override", "\n"))
		m.settled()
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestLedgerIsLogged: a log says once, after the start, what the ledger holds.
func TestLedgerIsLogged(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		logged := m.logTo(zapcore.InfoLevel)
		m.settled()
		if n := logged.FilterMessageSnippet("ledger is empty").Len(); n != 1 {
			t.Errorf("of an empty ledger %d lines", n)
		}
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		logged = m.logTo(zapcore.InfoLevel)
		m.settled()
		all := logged.FilterMessage("ledger was read").All()
		if len(all) != 1 || all[0].ContextMap()["networks"] != int64(1) || all[0].ContextMap()["devices"] != int64(1) ||
			all[0].ContextMap()["quarantined"] != int64(0) {
			t.Errorf("logged: %v", all)
		}
	})
}
