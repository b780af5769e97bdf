package netdrv_test

import (
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
)

// forgetful adds a PF whose driver loses what it has set for its VFs when it is reset.
func forgetful(m *machine) {
	pf := igb()
	pf.Up, pf.VFs, pf.Behaviour, pf.ResetForgets = true, 2, hwtest.AllVFOps(), true
	m.kernel.AddPF(pf)
	m.settled()
}

// resetsOf returns what the log says about resets since the last time: "vf 0: mac, vlan: set again", and empties it.
func resetsOf(logged *observer.ObservedLogs) string {
	var all []string
	for _, e := range logged.FilterMessage("vf of a container lost settings when its pf was reset").All() {
		f := e.ContextMap()
		var names []string
		for _, n := range f["attributes"].([]any) {
			names = append(names, n.(string))
		}
		all = append(all, f["device"].(string)+": "+strings.Join(names, " ")+": "+f["outcome"].(string))
	}
	logged.TakeAll()
	return strings.Join(all, "\n")
}

// TestSettingsAfterReset: what a reset of a PF takes from the VFs of containers is set again within 5 s of its end, whatever kind of reset it
// is: one whose link comes back, one that creates the netdev of the PF again. The log has a line for each VF.
func TestSettingsAfterReset(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]func(m *machine){
		"a reset of firmware or function": func(m *machine) {
			m.kernel.Reset(pfPCI, 4*time.Second)
			m.after(4 * time.Second)
		},
		"a reset of a minute": func(m *machine) {
			m.kernel.Reset(pfPCI, 50*time.Second)
			m.after(50 * time.Second)
		},
		"devlink reload": func(m *machine) {
			m.kernel.Reload(pfPCI, 3*time.Second)
			m.after(3*time.Second + 100*time.Millisecond)
			m.must(m.kernel.SetLink(m.kernel.Link("ens1f0").Index, hw.LinkUp, hw.Link{Up: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				logged := m.logTo(zapcore.WarnLevel)
				forgetful(m)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "max_tx_rate=500")
				m.mustCreate("t", "netdevice=ens1f0", "vlan=200", "trust=yes", "spoofchk=no")
				m.mustRun("a", "n")
				m.mustRun("b", "t")
				m.after(17 * time.Second) // not when a minute is over
				before := m.vfStates("ens1f0")
				reset(m)
				m.after(5 * time.Second)
				now := m.vfStates("ens1f0")
				for i := range 2 {
					if now[i] != before[i] {
						t.Errorf("vf %d is %+v, was %+v", i, now[i], before[i])
					}
				}
				m.after(time.Hour)
				want := "vf 0 of ens1f0 (0000:01:10.0): mac rate vlan: set again\nvf 1 of ens1f0 (0000:01:10.2): mac spoofchk trust vlan: set again"
				if got := resetsOf(logged); got != want {
					t.Errorf("the log says\n%s\nwant\n%s", got, want)
				}
			})
		})
	}
}

// TestAdministratorBeforeReset: what the administrator changed, and was warned of, is left as it is by a reset that keeps it. What cannot be set
// after a reset is told once, when the PF has had time for it, and set when that is possible.
func TestAdministratorBeforeReset(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		able(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.mustRun("a", "n")
		m.setVF(0, hw.VFTrust, hw.VFState{Trust: true})
		m.after(2 * time.Minute)
		wantChanges(t, logged, "trust is true, should be false: left as it is")
		m.kernel.Reset(pfPCI, time.Second)
		m.after(time.Hour)
		if got := resetsOf(logged); got != "" || !m.vfStates("ens1f0")[0].Trust {
			t.Errorf("the administrator's trust is taken: %s", got)
		}

		m.kernel.OnCall(refuse("set vlan"))
		m.kernel.Reload(pfPCI, time.Second)
		m.after(5 * time.Second)
		if got := resetsOf(logged); got != "" {
			t.Errorf("told while the pf was being reset: %s", got)
		}
		m.after(time.Hour)
		if got := resetsOf(logged); strings.Count(got, "\n") != 0 || !strings.Contains(got, ": set vlan 100 with ice: not supported") {
			t.Errorf("the log says\n%s", got)
		}
		m.kernel.OnCall(nil)
		m.after(2 * time.Minute)
		m.wantVLANs(100)
		if got := resetsOf(logged); !strings.HasSuffix(got, "vlan: set again") {
			t.Errorf("the log says\n%s", got)
		}
	})
}

// TestDeviceLost: a container that is without its device is named once, within 5 s, and as long as it has not ended in the status; a start
// gives it a device that works.
func TestDeviceLost(t *testing.T) {
	t.Parallel()
	const vf, host = "0000:01:10.0", "is in the host again: the nic was reset, or its driver bound again"
	for name, c := range map[string]struct {
		lose   func(m *machine)
		reason string
	}{
		"its driver is bound again": {func(m *machine) { m.kernel.BindAgain(vf) }, host},
		"its driver is unbound and bound later": {func(m *machine) {
			m.must(m.kernel.WriteAttr("bus/pci/devices/"+vf+"/driver/unbind", vf))
			m.after(30 * time.Millisecond)
			m.must(m.kernel.WriteAttr("bus/pci/devices/"+vf+"/driver_override", "igbvf"))
			m.must(m.kernel.WriteAttr("bus/pci/drivers_probe", vf))
		}, host},
		"its pf is reset, and its driver does not notice": {func(m *machine) {
			m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/reset", "1"))
		}, "does nothing: its pf was reset, which its driver has not noticed"},
		"its vf is removed": {func(m *machine) {
			m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "0"))
		}, "is gone, with the driver of its pf or with the nic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				logged := m.logTo(zapcore.WarnLevel)
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2", "vlan=5")
				m.mustRun("a", "n")
				m.after(17 * time.Second)
				if m.lostReason() != "" {
					t.Errorf("%s is lost before", m.lostReason())
				}
				c.lose(m)
				told := func() (lines []string) {
					for _, e := range logged.FilterMessage("container is without its device, and has to be started again if it runs").All() {
						f := e.ContextMap()
						lines = append(lines, f["endpoint"].(string)+" "+f["event"].(string)+" "+f["reason"].(string))
					}
					return lines
				}
				m.after(5 * time.Second)
				want := "a-endpoint-0 warning vf 0 of ens1f0 (0000:01:10.0) " + c.reason
				if got := told(); len(got) != 1 || got[0] != want {
					t.Errorf("told %q, want %q", got, want)
				}
				m.after(2 * time.Hour) // an orphan would be freed, with its addresses, which the container has to the engine
				if got := told(); len(got) != 1 || m.lostReason() != c.reason {
					t.Errorf("told %q, and the status says %q", got, m.lostReason())
				}
				m.leave("a") // the engine does not find the device in the container
				m.kernel.KillNS("a", 0)
				m.delete("a")
				m.mustRun("a", "n")
				m.after(time.Minute)
				if got := told(); len(got) != 1 || m.lostReason() != "" {
					t.Errorf("after a start: told %q, and the status says %q", got, m.lostReason())
				}
				m.end("a")
			})
		})
	}
}

// lostReason is why the status says that a container is without its device, "" for none.
func (m *machine) lostReason() (why string) {
	m.t.Helper()
	status, err := m.driver.Status(m.t.Context(), &admin.StatusRequest{})
	m.must(err)
	for _, d := range status.Devices {
		why += d.Lost
	}
	return why
}

// TestDeviceLostWhilePluginWasAway: a netdev that was made while the plugin did not run is told from one that the engine has not moved yet.
func TestDeviceLostWhilePluginWasAway(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		m.mustRun("a", "n")
		m.stop()
		m.kernel.BindAgain("0000:01:10.0")
		m.start(m.store)
		m.after(5 * time.Second)
		if why := m.lostReason(); !strings.HasPrefix(why, "is in the host again") {
			t.Errorf("the status says %q", why)
		}
		m.leave("a")
		m.kernel.KillNS("a", 0)
		m.delete("a")
	})
}

// TestDeviceNotLost: nothing is told of a container whose engine is slow to move its device there, or back, or that is stopped.
func TestDeviceNotLost(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: addressOf("a")})
		m.must(err)
		join, err := m.join("a", "n")
		m.must(err)
		m.after(20 * time.Minute)
		m.must(m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0"))
		m.where["a"] = place{"n", join.InterfaceName.SrcName, "eth0"}
		m.after(time.Minute)
		m.leave("a")
		m.must(m.kernel.MoveHome("a", "eth0", join.InterfaceName.SrcName))
		m.after(time.Minute)
		m.delete("a")
		if all := logged.FilterMessageSnippet("without its device").All(); len(all) > 0 {
			t.Errorf("told: %v", all)
		}
	})
}
