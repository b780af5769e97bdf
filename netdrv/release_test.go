package netdrv_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/netdrv"
)

// slowNIC is a PF with VFs whose driver takes a second to set one up.
func slowNIC(m *machine) {
	pf := igb()
	pf.Up, pf.ProbeTakes, pf.ResetTakes = true, time.Second, 0
	m.kernel.AddPF(pf)
	m.settled()
}

// TestReleaseLater: the engine has its answer before the VF of a container that was stopped is released. Whoever wants the VF, or what it has,
// waits for it.
func TestReleaseLater(t *testing.T) {
	t.Parallel()
	const vf0 = "0000:01:10.0"
	for name, c := range map[string]struct {
		options []string
		own     map[string]any // of the container that is stopped
		then    func(m *machine)
	}{
		"a restarted container gets its vf again, though others are free": {then: func(m *machine) {
			m.must(m.runWith("a", "n", nil))
			m.wantIn(vf0, "a")
		}},
		"one that has an address of its own gets another at once": {then: func(m *machine) {
			start := time.Now()
			m.must(m.runWith("b", "n", nil))
			m.wantIn("0000:01:10.2", "b")
			if took := time.Since(start); took > 1500*time.Millisecond { // its own driver takes a second
				m.t.Errorf("took %s", took)
			}
			m.end("b")
		}},
		"the only vf": {options: []string{"vfs=0"}, then: func(m *machine) {
			m.must(m.runWith("b", "n", nil))
			m.wantIn(vf0, "b")
			m.end("b")
		}},
		"the vf by its index": {then: func(m *machine) {
			m.must(m.runWith("b", "n", map[string]any{"vf": "0"}))
			m.wantIn(vf0, "b")
			m.end("b")
		}},
		"the vf by its netdev's name": {then: func(m *machine) {
			m.must(m.runWith("b", "n", map[string]any{"vf": "ens1f0v0"}))
			m.wantIn(vf0, "b")
			m.end("b")
		}},
		"its mac on another vf": {own: map[string]any{"mac": "02:00:00:00:00:99"}, then: func(m *machine) {
			m.must(m.runWith("b", "n", map[string]any{"mac": "02:00:00:00:00:99", "vf": "1"}))
			m.wantIn("0000:01:10.2", "b")
			m.end("b")
		}},
		"its network is removed, and its vfs": {then: func(m *machine) { m.mustRemove("n") }},
		"a network of it as a device": {then: func(m *machine) {
			m.mustCreate("whole", "netdevice=ens1f0v0", "mode=passthrough")
			m.mustRemove("whole")
		}},
		"the plugin is stopped": {then: func(m *machine) { m.restart() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				slowNIC(m)
				before := m.kernel.String()
				m.mustCreate("n", append([]string{"netdevice=ens1f0", "vlan=100"}, c.options...)...)
				m.must(m.runWith("a", "n", c.own))
				m.wantIn(vf0, "a")
				start := time.Now()
				m.stopContainer("a")
				if took := time.Since(start); took > 0 {
					t.Errorf("the engine waited %s", took)
				}
				m.after(500 * time.Millisecond) // its driver is at it
				c.then(m)
				if m.where["a"].network != "" {
					m.stopContainer("a")
				}
				m.mustRemove("n")
				m.wantFreeNow(before)
			})
		})
	}
}

// wantFreeNow checks that the host is as before, and that the ledger is empty.
func (m *machine) wantFreeNow(before string) {
	m.t.Helper()
	if keys := m.keys(); len(keys) > 0 {
		m.t.Errorf("left in the ledger: %v", keys)
	}
	if now := m.kernel.String(); now != before {
		m.t.Errorf("the host is\n%s\nit was\n%s", now, before)
	}
}

// TestStopWithoutLedger: the process ends after the releases that go on, even if the ledger cannot be read any more.
func TestStopWithoutLedger(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		var fails atomic.Bool
		slowNIC(m)
		m.stop()
		m.start(unread{m.store, &fails})
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		m.mustRun("a", "n")
		m.stopContainer("a")
		m.after(500 * time.Millisecond) // its driver is at it
		fails.Store(true)
		start := time.Now()
		m.stop()
		if took := time.Since(start); took == 0 {
			t.Error("the process ended in the middle of a release")
		}
		m.start(m.store)
		m.mustRemove("n")
	})
}

// TestReleaseOfHostDevice: a device of the host is back when the engine has its answer.
func TestReleaseOfHostDevice(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "n")
		m.stopContainer("a")
		if now := m.kernel.String(); now != before {
			t.Errorf("the host is\n%s\nit was\n%s", now, before)
		}
		m.mustRemove("n")
	})
}

// TestAwaitReleases: it waits for no device that does not come home, and ends with its context.
func TestAwaitReleases(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		slowNIC(m)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		m.deleteEndpoint("a") // the engine was killed: the VF is in the container still
		m.after(10 * time.Second)
		start := time.Now()
		m.awaitReleases()
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %s for a vf that is away", took)
		}
		m.mustRun("b", "n")
		m.stopContainer("b")
		ctx, cancel := context.WithTimeout(m.ctx, 100*time.Millisecond)
		defer cancel()
		wantError(t, netdrv.AwaitReleases(ctx, m.driver), "vf 1 of ens1f0 (0000:01:10.2) is on its way back from endpoint b-endpoint-0 ("+ipOf("b")+"): "+
			"another call works on the same, and has not ended; try again in some seconds: context deadline exceeded")
	})
}

// TestPanicInRelease: the process survives a panic after the engine has its answer, and the VF can be had again.
func TestPanicInRelease(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		slowNIC(m)
		m.mustCreate("n", "netdevice=ens1f0", "vfs=0")
		m.mustRun("a", "n")
		core, logged := observer.New(zap.InfoLevel)
		m.stop()
		m.log = zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
			if e.Message == "released" {
				panic("as by a bug")
			}
			return nil
		}))
		m.start(m.store)
		m.end("a")
		if n := logged.FilterMessage("release of the device ended; it is tried again").Len(); n != 1 {
			t.Errorf("logged %v", logged.All())
		}
		m.stop()
		m.log = zap.NewNop()
		m.start(m.store)
		m.mustRun("b", "n")
		m.end("b")
	})
}
