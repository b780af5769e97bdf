package netdrv_test

import (
	"testing"
)

// TestChosenMACGoesBack: a VF does not keep a MAC that the user chose for a container. In the host it would be a second device with that
// address as soon as another VF has it.
func TestChosenMACGoesBack(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		states := m.vfStates("ens1f0")
		own := states[0].MAC
		const chosen = "02:00:00:00:00:42"
		m.mustRun("a", "n", chosen)
		m.end("a")
		_, l, ok := m.kernel.Netdev("0000:01:10.0")
		if !ok || l.MAC != own {
			t.Errorf("in the host it has %s, want %s", l.MAC, own)
		}
		m.mustRun("b", "n")
		m.mustRun("c", "n", chosen)
		for container, want := range map[string]string{"b": string(own), "c": chosen} {
			if l := m.kernel.InNS(container).Links()[0]; string(l.MAC) != want {
				t.Errorf("%s has %s, want %s", container, l.MAC, want)
			}
		}
		m.end("b")
		m.end("c")
	})
}
