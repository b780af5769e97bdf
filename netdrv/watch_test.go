package netdrv_test

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestWatchEnds: when the kernel's reports end, links are watched again, at once or as soon as that is possible. The log says so once. A
// device that comes home is restored at once, and not a minute later.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]time.Duration{"for a moment": 0, "for long": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				oneVF(m)
				logged := m.logTo(zapcore.InfoLevel)
				m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
				before := m.kernel.String()
				for range 3 {
					m.mustRun("a", "n")
					m.leave("a")
					m.delete("a")
					m.after(30*time.Minute + 17*time.Second)
					m.kernel.EndWatches(outage > 0)
					m.after(outage)
					m.kernel.EndWatches(false)
					m.after(time.Minute + time.Second)
					m.kernel.KillNS("a", 0)
					m.after(time.Second)
					m.wantKeys("net/n")
					m.wantHost(before)
				}
				for text, want := range map[string]int{"changes of links are not reported; looking every 1m0s": 3, "changes of links are reported again": 3} {
					if n := logged.FilterMessage(text).Len(); n != want {
						t.Errorf("%q is logged %d times, want %d", text, n, want)
					}
				}
			})
		})
	}
}

// logTo starts the driver again with a log that the test can read.
func (m *machine) logTo(level zapcore.Level) *observer.ObservedLogs {
	m.t.Helper()
	core, logged := observer.New(level)
	m.stop()
	m.log = zap.New(core)
	m.start(m.store)
	return logged
}
