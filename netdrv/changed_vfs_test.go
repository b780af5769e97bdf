package netdrv_test

import (
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/store"
)

// setVF changes an attribute of a VF of ens1f0 on the host, as an administrator does.
func (m *machine) setVF(vf int, a hw.VFAttr, s hw.VFState) {
	m.t.Helper()
	m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, vf, a, s))
}

// changesOf returns what the log says about changes of VFs: "vf 0 ... of network n: vlan is 777, should be 100: set again".
func changesOf(logged *observer.ObservedLogs) []string {
	var all []string
	for _, e := range logged.FilterMessage("vf of a container was changed on the host").All() {
		f := e.ContextMap()
		all = append(all, f["device"].(string)+" of network "+f["network"].(string)+": "+f["attribute"].(string)+" is "+f["is"].(string)+
			", should be "+f["should_be"].(string)+": "+f["outcome"].(string))
	}
	return all
}

// wantChanges compares what the log says about changes of VFs since the last time.
func wantChanges(t *testing.T, logged *observer.ObservedLogs, want ...string) {
	t.Helper()
	got := changesOf(logged)
	logged.TakeAll()
	for i := range want {
		want[i] = "vf 0 of ens1f0 (0000:01:10.0) of network n: " + want[i]
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("warned of\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestVFChangedOnHost: what is changed on the host for the VF of a container is noticed within a minute and warned of once. VLAN and spoof
// check are set again.
func TestVFChangedOnHost(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		able(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "max_tx_rate=500")
		_, mac := m.mustRun("a", "n")
		m.after(time.Hour)
		wantChanges(t, logged)
		states := m.vfStates("ens1f0")
		for range 2 { // also the second time
			m.setVF(0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 777}})
			m.after(61 * time.Second)
			wantChanges(t, logged, "vlan is 777, should be 100: set again")
			m.setVF(0, hw.VFSpoofchk, hw.VFState{})
			m.after(61 * time.Second)
			wantChanges(t, logged, "spoofchk is false, should be true: set again")
			m.setVF(0, hw.VFTrust, hw.VFState{Trust: true})
			m.after(time.Hour)
			wantChanges(t, logged, "trust is true, should be false: left as it is")
			m.setVF(0, hw.VFTrust, hw.VFState{})
			m.after(2 * time.Minute)
		}
		m.setVF(0, hw.VFMAC, hw.VFState{MAC: "02:00:00:00:00:99"})
		m.after(time.Hour)
		wantChanges(t, logged, "mac is 02:00:00:00:00:99, should be "+mac+": left as it is")
		m.setVF(0, hw.VFMAC, hw.VFState{MAC: hw.MAC(mac)})
		m.setVF(0, hw.VFRate, hw.VFState{Rate: hw.Rate{Max: 7}})
		m.after(time.Hour)
		wantChanges(t, logged, "rate is min 0 max 7 Mbit/s, should be min 0 max 500 Mbit/s: left as it is")
		m.setVF(0, hw.VFRate, hw.VFState{Rate: hw.Rate{Max: 500}})
		m.setVF(0, hw.VFLinkState, hw.VFState{LinkMode: hw.LinkEnable}) // the network leaves that to the administrator
		m.after(time.Hour)
		wantChanges(t, logged)
		m.setVF(0, hw.VFLinkState, hw.VFState{})
		if now := m.vfStates("ens1f0"); now[0] != states[0] {
			t.Errorf("vf 0 is %+v, was %+v", now[0], states[0])
		}
		if n := m.counted("vfs_changed"); n != 8 {
			t.Errorf("counted %d changes, want 8", n)
		}
		m.end("a")
		m.wantHost(before)
	})
}

// TestVFCannotBeSetAgain: a change that cannot be undone is warned of once, with the reason, and undone when that is possible.
func TestVFCannotBeSetAgain(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		able(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.mustRun("a", "n")
		m.setVF(0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 777}})
		m.kernel.OnCall(refuse("set vlan"))
		m.after(time.Hour)
		wantChanges(t, logged, "vlan is 777, should be 100: vf 0 of ens1f0 (0000:01:10.0): set vlan 100 with ice: "+
			"not supported by the driver (operation not supported)")
		m.kernel.OnCall(nil)
		m.after(2 * time.Minute)
		m.wantVLANs(100)
		wantChanges(t, logged, "vlan is 777, should be 100: set again")
	})
}

// TestVFNotChanged: what a driver does not support or report, what a trusted VF does itself and what an older release has recorded is not
// mistaken for a change on the host.
func TestVFNotChanged(t *testing.T) {
	t.Parallel()
	for _, make := range hwtest.Makes(t) {
		t.Run(make.Name, func(t *testing.T) {
			story(t, func(m *machine) {
				logged := m.logTo(zapcore.WarnLevel)
				m.kernel.AddPF(make.PF)
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
				m.mustRun("a", "n")
				m.after(time.Hour)
				wantChanges(t, logged)
			})
		})
	}
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		able(m)
		m.mustCreate("n", "netdevice=ens1f0", "trust=yes")
		m.mustRun("a", "n")
		m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MAC: "02:00:00:00:00:99"}, hw.LinkMAC))
		m.after(time.Hour)
		wantChanges(t, logged)
	})
}

// TestVFOfOlderRelease: an older release left the VLAN as it was, and did not record what the PF reported. Its running container keeps what
// it has; a VLAN that its network asked for is set again if it is changed. The next container is untagged.
func TestVFOfOlderRelease(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		logged := m.logTo(zapcore.WarnLevel)
		able(m)
		m.mustCreate("plain", "netdevice=ens1f0")
		m.mustRun("old", "plain")
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.mustRun("tagged", "n")
		m.tag(0, 30)
		m.stop()
		for _, r := range m.ledgerRecords() {
			if strings.HasPrefix(r.Key, "dev/") {
				b := regexp.MustCompile(`"reported":\{[^}]*\{[^}]*\}[^}]*\{[^}]*\}[^}]*\},`).ReplaceAll(r.Record, nil)
				if strings.Contains(r.Key, "10.0") {
					b = regexp.MustCompile(`,"vlan":2`).ReplaceAll(b, nil)
				}
				_, err := m.store.Txn(m.t.Context(), nil, []store.Op{store.Put(r.Key, b)})
				m.must(err)
			}
		}
		if l := m.ledger(); strings.Contains(l, "reported") || strings.Count(l, `"vlan":2`) != 1 {
			t.Fatalf("not as an older release wrote it:\n%s", l)
		}
		m.start(m.store)
		m.tag(1, 31)
		m.after(time.Hour)
		m.wantVLANs(30, 100)
		if got := changesOf(logged); len(got) != 1 || !strings.Contains(got[0], "vf 1 of ens1f0 (0000:01:10.2) of network n: vlan is 31, should be 100") {
			t.Errorf("warned of %q", got)
		}
		m.end("old")
		m.mustRun("new", "plain")
		m.wantVLANs(0, 100)
	})
}

// askedVFs counts how often VFs are listed.
type askedVFs struct {
	hw.Kernel
	n atomic.Int32
}

func (k *askedVFs) VFs(pf int) (map[int]hw.VFState, error) {
	k.n.Add(1)
	return k.Kernel.VFs(pf)
}

// TestVFsListedOncePerPF: looking for changes costs one listing for each PF and minute, however many VFs have containers, and none without.
func TestVFsListedOncePerPF(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		able(m)
		m.stop()
		k := &askedVFs{Kernel: m.kernel}
		m.startOn(m.store, k)
		m.mustCreate("n", "netdevice=ens1f0")
		k.n.Store(0)
		m.after(time.Hour)
		if n := k.n.Load(); n != 0 {
			t.Errorf("asked %d times without a container", n)
		}
		m.mustRun("a", "n")
		m.mustRun("b", "n")
		k.n.Store(0)
		m.after(time.Hour)
		if n := k.n.Load(); n < 59 || n > 61 {
			t.Errorf("asked %d times in an hour, want 60", n)
		}
	})
}
