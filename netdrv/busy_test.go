package netdrv_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/store"
)

// e810 adds a PF of ice whose VFs are bound to iavf since boot, and cannot be set up for a while after the PF has changed them.
func e810(m *machine, opensAfter time.Duration) {
	pf := igb()
	pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.ICE(), "ice", "iavf"
	pf.Up, pf.VFs, pf.TotalVFs, pf.VFOpensAfter = true, 7, 7, opensAfter
	m.kernel.AddPF(pf)
	m.settled()
}

// unbinds counts how often a VF was unbound from its driver.
func (m *machine) unbinds() (n int) {
	for _, call := range m.kernel.Calls() {
		if strings.Contains(call, "/unbind") {
			n++
		}
	}
	return n
}

// wantNoQuarantine checks that no device was ever quarantined.
func (m *machine) wantNoQuarantine() {
	m.t.Helper()
	if n := m.counted("devices_quarantined"); n != 0 {
		m.t.Errorf("%d devices were quarantined:\n%s", n, m.ledger())
	}
}

// TestVFOpensLate: a VF that cannot be set up yet is waited for. It is neither unbound nor quarantined.
func TestVFOpensLate(t *testing.T) {
	t.Parallel()
	for _, takes := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				e810(m, takes)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "vlan=9")
				m.mustRun("a", "n")
				if n := m.unbinds(); n != 0 {
					t.Errorf("vfs were unbound %d times", n)
				}
				m.end("a")
				m.settled()
				m.wantNoQuarantine()
				m.wantKeys("net/n")
				m.wantHost(before)
			})
		})
	}
}

// TestPFResetMoment: containers that are started while a PF is reset get a VF, and no healthy VF is quarantined.
func TestPFResetMoment(t *testing.T) {
	t.Parallel()
	for _, takes := range []time.Duration{300 * time.Millisecond, 2 * time.Second} {
		for _, late := range []time.Duration{0, 10 * time.Millisecond, 60 * time.Millisecond} { // the reset begins during the call
			t.Run(fmt.Sprint(takes, " ", late), func(t *testing.T) {
				t.Parallel()
				story(t, func(m *machine) {
					e810(m, 0)
					before := m.kernel.String()
					m.mustCreate("n", "netdevice=ens1f0")
					at := time.AfterFunc(late, func() { m.kernel.Reset(pfPCI, takes) })
					defer at.Stop()
					m.after(0)
					m.mustRun("a", "n")
					m.mustRun("b", "n")
					m.end("a")
					m.end("b")
					m.settled()
					m.wantNoQuarantine()
					m.wantKeys("net/n")
					m.wantHost(before)
				})
			})
		}
	}
}

// TestResetUnderContainer: a PF, or a VF, is reset while a container has the VF. The container keeps it, with carrier after the reset. If
// it ends meanwhile, the VF is free within seconds after the reset.
func TestResetUnderContainer(t *testing.T) {
	t.Parallel()
	const vf = "0000:01:10.0"
	for _, pci := range []string{pfPCI, vf} {
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprint(pci, " ends meanwhile: ", ends), func(t *testing.T) {
				t.Parallel()
				story(t, func(m *machine) {
					e810(m, 0)
					before := m.kernel.String()
					m.mustCreate("n", "netdevice=ens1f0", "vlan=9", "max_tx_rate=100")
					m.mustRun("a", "n")
					m.after(time.Second)
					m.kernel.Reset(pci, 15*time.Second)
					if _, l, _ := m.kernel.Netdev(vf); l.Carrier {
						t.Error("the vf has carrier during the reset")
					}
					if ends {
						m.end("a")
					}
					m.after(15*time.Second + 5*time.Second)
					if !ends {
						if ns, l, _ := m.kernel.Netdev(vf); ns != "a" || !l.Carrier {
							t.Errorf("after the reset the vf is in %q, carrier %t", ns, l.Carrier)
						}
						m.end("a")
					}
					m.wantKeys("net/n")
					m.wantHost(before)
				})
			})
		}
	}
}

// TestRateWithoutLink: igb and ixgbe set rates only with a link. A VF that comes home while the switch is away is free within seconds
// after it is back, however long that took.
func TestRateWithoutLink(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{5 * time.Second, 12 * time.Second, 2 * time.Minute, 20 * time.Minute, 40 * time.Minute, 50 * time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "max_tx_rate=100")
				m.mustRun("a", "n")
				m.kernel.Plug("ens1f0", false)
				m.end("a")
				m.after(outage)
				m.kernel.Plug("ens1f0", true)
				m.after(time.Second)
				m.wantKeys("net/n")
				m.wantHost(before)
			})
		})
	}
}

// TestFlappingLink: each time that the link comes back begins a short series of attempts, and nothing more.
func TestFlappingLink(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=9")
		m.mustRun("a", "n")
		m.kernel.OnCall(func(_ int, what string) error {
			if what == "set ens1f0 vf 0: set vlan 0" {
				return syscall.EIO
			}
			return nil
		})
		m.kernel.KillNS("a", 0)
		m.must(m.deleteFrom("a", "n"))
		m.after(11 * time.Second)
		was := m.counted("tried_again")
		for range 10 {
			m.kernel.Plug("ens1f0", false)
			m.after(time.Minute)
			m.kernel.Plug("ens1f0", true)
			m.after(time.Minute)
		}
		if n := m.counted("tried_again") - was; n < 10 || n > 10*21+10 {
			t.Errorf("it was tried %d times", n)
		}
		was = m.counted("tried_again")
		m.after(time.Hour) // without a change
		if n := m.counted("tried_again") - was; n > 6 {
			t.Errorf("it was tried %d times in an hour without a change", n)
		}
		m.kernel.OnCall(nil)
		m.after(2 * time.Hour)
		m.wantKeys("net/n")
	})
}

// TestLateAndBusy: for how long a device is tried again counts from when it is in the host, not from when the engine wanted it back.
func TestLateAndBusy(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{5 * time.Second, 15 * time.Second, 3 * time.Hour} {
		t.Run(late.String(), func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "n")
				m.leave("a")
				m.kernel.KillNS("a", late)
				m.delete("a")
				busy := 3
				m.kernel.OnCall(func(_ int, what string) error {
					if busy > 0 && strings.Contains(what, "set name") {
						busy--
						return syscall.EBUSY
					}
					return nil
				})
				m.after(late + 3*time.Second)
				m.wantNoQuarantine()
				m.wantKeys("net/n")
				m.wantHost(before)
				if busy != 0 {
					t.Errorf("busy %d times less", busy)
				}
			})
		})
	}
}

// TestOldestQuarantinedIsTried: a container that finds only quarantined devices gets the one that was quarantined first, if what kept it
// from being restored is over.
func TestOldestQuarantinedIsTried(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"vfs":          {"netdevice=ens1f0", "vlan=9"},
		"whole device": {"netdevice=ens2", "mode=passthrough"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.TotalVFs = true, 2, 2
				m.kernel.AddPF(pf)
				nic(m)
				m.settled()
				m.mustCreate("n", options...)
				containers := []string{"a"}
				if name == "vfs" {
					containers = append(containers, "b")
				}
				for _, c := range containers {
					m.mustRun(c, "n")
				}
				m.kernel.OnCall(func(_ int, what string) error {
					if strings.HasSuffix(what, "set vlan 0") || what == "set ens2: set mtu 1500" {
						return syscall.EIO
					}
					return nil
				})
				for _, c := range containers {
					m.must(m.kernel.InNS(c).SetLink("eth0", hw.Link{MTU: 1400}, hw.LinkMTU))
					m.end(c)
					m.after(15 * time.Second)
				}
				s, err := m.driver.Status(m.ctx, &admin.StatusRequest{})
				m.must(err)
				for _, d := range s.Devices {
					if wait := time.Until(d.Retry); d.State != "quarantined" || wait <= 0 || wait > time.Minute {
						t.Errorf("%s is %s, and is tried again in %s, want less than a minute", d.Label, d.State, wait)
					}
				}
				if _, _, err := m.run("c", "n"); err == nil || !strings.Contains(err.Error(), "is quarantined: ") {
					t.Errorf("error is %v", err)
				}
				m.after(2 * time.Hour)
				m.kernel.OnCall(nil)
				m.mustRun("c", "n")
				if name == "vfs" {
					m.wantIn("0000:01:10.0", "c")
				}
			})
		})
	}
}

// TestReturnToPFSetDown: an administrator sets a PF down while a container has a VF of it, and the driver restores no VF of a PF that is down.
// The PF stays down and the VF is not lost: it is free within seconds after the PF is up.
func TestReturnToPFSetDown(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{5 * time.Second, 40 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.TotalVFs, pf.VFOpsNeedUp = true, 1, 1, true
				m.kernel.AddPF(pf)
				m.settled()
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "vlan=9")
				m.mustRun("a", "n")
				index := m.kernel.Link("ens1f0").Index
				m.must(m.kernel.SetLink(index, hw.LinkUp, hw.Link{}))
				m.end("a")
				m.after(outage)
				if m.kernel.Link("ens1f0").Up {
					t.Error("the pf was set up behind the administrator's back")
				}
				const why = "ens1f0 (0000:01:00.0) is down, and its driver igb does nothing for vfs until it is up; set it up (ip link set ens1f0 up)"
				if outage > retryWindow && !strings.Contains(m.ledger(), why) {
					t.Errorf("the reason is not that the pf is down:\n%s", m.ledger())
				}
				m.must(m.kernel.SetLink(index, hw.LinkUp, hw.Link{Up: true}))
				m.after(5 * time.Second)
				m.wantKeys("net/n")
				m.mustRun("b", "n") // a VF of igb that was bound while its PF was down has to be bound again
				m.end("b")
				m.settled()
				m.wantHost(before)
			})
		})
	}
}

// retryWindow is for how long a device is tried again before it is quarantined.
const retryWindow = 10 * time.Second

// TestClockSetBack: the ledger has a time of the future, because the clock was set back. What waits from then on does not wait longer.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"freeing", "quarantined"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=9")
				before := m.kernel.String()
				m.mustRun("a", "n")
				var broken atomic.Bool
				broken.Store(true)
				m.kernel.OnCall(func(_ int, what string) error {
					if broken.Load() && what == "set ens1f0 vf 0: set vlan 0" {
						return syscall.EIO
					}
					return nil
				})
				if state == "quarantined" {
					m.end("a")
					m.after(time.Minute)
				} else {
					m.leave("a")
					m.delete("a")
					m.after(time.Second)
				}
				m.stop()
				m.setBack("dev/0000:01:10.0", time.Now().Add(48*time.Hour))
				m.start(m.store)
				if state == "freeing" {
					m.kernel.KillNS("a", 0)
				}
				m.after(retryWindow + 3*time.Second)
				if !strings.Contains(m.ledger(), `"state":"quarantined"`) {
					t.Errorf("it is not quarantined:\n%s", m.ledger())
				}
				broken.Store(false)
				m.after(5 * time.Minute)
				m.wantKeys("net/n")
				m.wantHost(before)
			})
		})
	}
}

// setBack sets the time at which an allocation got into its state.
func (m *machine) setBack(key string, since time.Time) {
	m.t.Helper()
	for _, r := range m.ledgerRecords() {
		if r.Key != key {
			continue
		}
		var rec map[string]any
		m.must(json.Unmarshal(r.Record, &rec))
		rec["since"] = since
		value, err := json.Marshal(rec)
		m.must(err)
		_, err = m.store.Txn(m.t.Context(), nil, []store.Op{store.Put(key, value)})
		m.must(err)
	}
}
