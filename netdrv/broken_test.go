package netdrv_test

import (
	"testing"
	"time"
)

// TestDriverNeverLoads: no VF can be used without the VFs' driver. The error says what to load, in time for the engine to show it, and no VF
// is quarantined.
func TestDriverNeverLoads(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := igb()
		pf.VFDriverAfter = -1
		m.kernel.AddPF(pf)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		start := time.Now()
		_, _, err := m.run("a", "n")
		wantError(t, err, "vf 0 of ens1f0 (0000:01:10.0): bind to its driver: driver igbvf is not loaded; "+
			"load it (modprobe igbvf)")
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		m.wantKeys("net/n", "pf/0000:01:00.0")
		m.kernel.LoadDriver("igbvf")
		m.mustRun("a", "n")
		m.end("a")
		m.mustRemove("n")
		m.wantHost(before)
	})
}

// TestEveryVFIsFaulty: if VFs are faulty others are tried, as far as the time of a call allows. The error says what is wrong, and
// distinguishes quarantined VFs from those in use.
func TestEveryVFIsFaulty(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs, pf.TotalVFs, pf.BadVFs, pf.VFDriverAfter = true, 2, 2, []int{0, 1}, 0
		m.kernel.AddPF(pf)
		m.after(time.Minute)
		m.mustCreate("n", "netdevice=ens1f0")
		before := m.kernel.String()
		const dead = "wait for carrier: device not ready, also after it was unbound and bound; " +
			"is it seen in the kernel log (dmesg)?"
		const vf0, vf1 = "vf 0 of ens1f0 (0000:01:10.0)", "vf 1 of ens1f0 (0000:01:10.2)"
		const all = "ens1f0 (0000:01:00.0): all 2 vfs are in use: " +
			vf0 + " is quarantined: " + vf0 + ": " + dead + "; " + vf1 + " is quarantined: " + vf1 + ": " + dead
		for _, want := range []string{
			vf0 + ": " + dead + "; there was no time to try another: " + vf1 + ": wait for carrier: context deadline exceeded",
			all, all,
		} {
			_, _, err := m.run("a", "n")
			wantError(t, err, want)
		}
		m.settled()
		m.wantKeys("net/n")
		m.wantHost(before)
	})
}
