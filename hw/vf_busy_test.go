package hw_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// e810 is a PF of ice whose VFs are bound to iavf since boot, and cannot be set up for a while after the PF has changed them.
func e810(opensAfter time.Duration) hwtest.PF {
	return hwtest.PF{Behaviour: hwtest.ICE(), Driver: "ice", VFDriver: "iavf", Name: "ens1f0", PCI: "0000:01:00.0",
		MAC: "52:54:00:aa:00:00", TotalVFs: 7, VFs: 2, Up: true, VFOpensAfter: opensAfter}
}

// unbinds counts how often a VF was unbound from its driver.
func (b *bench) unbinds() (n int) {
	for _, call := range b.k.Calls() {
		if strings.Contains(call, "/unbind") {
			n++
		}
	}
	return n
}

// TestVFOpensLate: a VF that cannot be set up while its driver resets it is waited for, and not unbound. It can be set up when it is
// ready: the engine sets it up next, and does not wait.
func TestVFOpensLate(t *testing.T) {
	t.Parallel()
	for _, takes := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		for _, mode := range []hw.LinkMode{"", hw.LinkDisable} {
			t.Run(fmt.Sprint(takes, " ", mode), func(t *testing.T) {
				onBench(t, e810(takes), func(b *bench) {
					spec := privileged()
					spec.LinkMode, spec.Policies[hw.VFLinkState] = mode, hw.Required
					_, n, err := b.attach(spec)
					b.must(err)
					if got := b.unbinds(); got != 0 {
						b.Errorf("unbound %d times", got)
					}
					b.must(b.k.SetLink(n.Index, hw.LinkUp, hw.Link{Up: true}))
				})
			})
		}
	}
}

// TestNotTheFaultOfTheVF: a VF that cannot be tested is not faulty: only one that is up, on a PF with carrier, and has none itself.
func TestNotTheFaultOfTheVF(t *testing.T) {
	t.Parallel()
	const opening = "vf 0 of ens1f0 (0000:01:10.0): wait until it can be set up: ens1f0v0: set up: "
	for name, c := range map[string]struct {
		pf     func(*hwtest.PF)
		meet   func(b *bench) // when the VF is set up for the first time
		errno  error          // of setting it up
		want   string         // error; "" for none
		faulty bool
	}{
		"the PF is reset": {meet: func(b *bench) { b.k.Reset("0000:01:00.0", 300*time.Millisecond) }},
		"the PF loses its carrier for a while, and the VF has it seconds later": {pf: func(p *hwtest.PF) {
			p.VFsRecover = 4 * time.Second
		}, meet: func(b *bench) { b.k.Reset("0000:01:00.0", 1500*time.Millisecond) }},
		"the PF has no carrier": {pf: func(p *hwtest.PF) { p.Unplugged = true }},
		"the VF is reset":       {meet: func(b *bench) { b.k.Reset("0000:01:10.0", 3*time.Second) }},
		"it is busy for long": {errno: syscall.EBUSY,
			want: opening + "device busy (device or resource busy)"},
		"it does not reach its PF, which works": {errno: syscall.ENETDOWN, faulty: true, want: opening + "device not ready (network is down)" +
			", also after it was unbound and bound; is it seen in the kernel log (dmesg)?"},
		"it does not reach its PF, which has no carrier": {pf: func(p *hwtest.PF) { p.Unplugged = true }, errno: syscall.ENETDOWN,
			want: opening + "device not ready (network is down); ens1f0 (0000:01:00.0), its pf, is being reset or has no carrier: device busy"},
	} {
		t.Run(name, func(t *testing.T) {
			pf := igb()
			if c.pf != nil {
				c.pf(&pf)
			}
			onBench(t, pf, func(b *bench) {
				met := false
				b.k.OnCall(func(_ int, what string) error {
					if what != "set ens1f0v0: set up true" {
						return nil
					}
					if !met && c.meet != nil {
						c.meet(b)
					}
					met = true
					return c.errno
				})
				_, _, err := b.attach(privileged())
				if c.want != "" {
					wantError(b.T, err, c.want)
				} else {
					b.must(err)
				}
				if errors.Is(err, hw.ErrDeviceFault) != c.faulty {
					b.Errorf("%v: does it match ErrDeviceFault: want %t", err, c.faulty)
				}
				if !met {
					b.Error("the vf was not set up")
				}
			})
		})
	}
}

// TestPFWasReset: a VF that stayed bound while its PF was reset does not work until it is bound again, and its driver does not notice. It
// is bound again at once: waiting for its carrier first took half of a call.
func TestPFWasReset(t *testing.T) {
	t.Parallel()
	for name, bound := range map[string]bool{"a VF that stayed bound": true, "a VF that was not bound": false} {
		t.Run(name, func(t *testing.T) {
			pf := igb()
			onBench(t, pf, func(b *bench) {
				if _, _, err := b.attach(privileged()); err != nil {
					t.Fatal(err)
				}
				if !bound {
					b.must(b.k.WriteAttr("bus/pci/devices/0000:01:10.0/driver/unbind", "0000:01:10.0"))
				}
				b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/reset", "1"))
				b.wait(time.Minute)
				unbinds, start := b.unbinds(), time.Now()
				_, n, err := b.attach(privileged())
				b.must(err)
				if took := time.Since(start); took > time.Second {
					b.Errorf("took %v", took)
				}
				if got := b.unbinds() - unbinds; bound != (got == 1) || !bound && got != 0 {
					b.Errorf("unbound %d times", got)
				}
				b.must(b.k.SetLink(n.Index, hw.LinkUp, hw.Link{Up: true}))
				b.wait(time.Second)
				if !b.k.Link("ens1f0v0").Carrier {
					b.Error("the vf has no carrier")
				}
				unbinds = b.unbinds() // from now on it is left alone
				_, _, err = b.attach(privileged())
				b.must(err)
				if b.unbinds() != unbinds {
					b.Error("unbound again")
				}
			})
		})
	}
}
