package hw_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// privileged is the spec of a privileged container.
func privileged() hw.VFSpec {
	return hw.VFSpec{
		VFState:  hw.VFState{MAC: "02:00:00:00:00:42", VLAN: hw.VLAN{ID: 100}, Trust: true},
		Policies: map[hw.VFAttr]hw.Policy{hw.VFMAC: hw.Required, hw.VFVLAN: hw.Required, hw.VFSpoofchk: hw.Required, hw.VFTrust: hw.Required},
	}
}

// attach attaches VF 0 to a container, without moving its netdev.
func (b *bench) attach(spec hw.VFSpec) (was hw.Snapshot, n hw.Netdev, err error) {
	b.Helper()
	was, err = b.h.SnapshotVF(b.pf(), b.vf(0))
	b.must(err)
	if n, err = b.h.SetVF(b.ctx, b.pf(), b.vf(0), spec); err == nil {
		n, err = b.h.ReadyVF(b.ctx, b.pf(), b.vf(0), spec)
	}
	return was, n, err
}

// TestDriversThatCannot: a driver may lack trust or spoofchk. That is an error only if they are required.
func TestDriversThatCannot(t *testing.T) {
	t.Parallel()
	try := func(s hw.VFState) hw.VFSpec {
		return hw.VFSpec{VFState: s, Policies: map[hw.VFAttr]hw.Policy{hw.VFSpoofchk: hw.BestEffort, hw.VFTrust: hw.BestEffort}}
	}
	must := func(s hw.VFState) hw.VFSpec {
		return hw.VFSpec{VFState: s, Policies: map[hw.VFAttr]hw.Policy{hw.VFSpoofchk: hw.Required, hw.VFTrust: hw.Required}}
	}
	const vf0, no = "vf 0 of ens1f0 (0000:01:10.0): ", " with igb: not supported by the driver (operation not supported)"
	for name, c := range map[string]struct {
		lacks func(*hwtest.PF)
		spec  hw.VFSpec
		want  string // error
	}{
		"no trust, not asked": {func(p *hwtest.PF) { p.Trust = false }, try(hw.VFState{Trust: true}), ""},
		"no trust, asked": {func(p *hwtest.PF) { p.Trust = false }, must(hw.VFState{Trust: true}),
			vf0 + "set trust true" + no},
		"no trust, asked for none": {func(p *hwtest.PF) { p.Trust = false }, must(hw.VFState{Spoofchk: true}), ""},
		"no spoofchk, not asked":   {func(p *hwtest.PF) { p.Spoofchk = false }, try(hw.VFState{Spoofchk: true}), ""},
		"no spoofchk, asked": {func(p *hwtest.PF) { p.Spoofchk = false }, must(hw.VFState{Spoofchk: true}),
			vf0 + "set spoofchk true" + no},
		"neither, both asked": {func(p *hwtest.PF) { p.Spoofchk, p.Trust = false, false },
			must(hw.VFState{Spoofchk: true, Trust: true}), vf0 + "set spoofchk true" + no + "\n" + vf0 + "set trust true" + no},
		"nothing at all, not asked": {func(p *hwtest.PF) { p.VFOps = false }, try(hw.VFState{Spoofchk: true, Trust: true}), ""},
		"nothing at all, a vlan asked": {func(p *hwtest.PF) { p.VFOps = false },
			hw.VFSpec{VFState: hw.VFState{VLAN: hw.VLAN{ID: 5}}, Policies: map[hw.VFAttr]hw.Policy{hw.VFVLAN: hw.Required}},
			vf0 + "set vlan 5" + no},
	} {
		t.Run(name, func(t *testing.T) {
			pf := igb()
			c.lacks(&pf)
			onBench(t, pf, func(b *bench) {
				before := b.k.String()
				was, _, err := b.attach(c.spec)
				if c.want == "" {
					b.must(err)
				} else {
					wantError(b.T, err, c.want)
				}
				b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
				b.wantHost(before)
			})
		})
	}
}

// TestDriverNotLoaded: the error names the driver to load.
func TestDriverNotLoaded(t *testing.T) {
	t.Parallel()
	pf := bare()
	pf.VFDriverAfter = -1
	onBench(t, pf, func(b *bench) {
		b.must(b.h.EnableVFs(b.ctx, b.pf(), 1))
		_, err := b.h.Bind(b.ctx, b.pf(), b.vf(0))
		wantError(b.T, err, "vf 0 of ens1f0 (0000:01:10.0): bind to its driver: driver igbvf is not loaded; "+
			"load it (modprobe igbvf)")
		b.k.LoadDriver("igbvf")
		n, err := b.h.Bind(b.ctx, b.pf(), b.vf(0))
		if err != nil || n.Name != "ens1f0v0" || b.vf(0).Override != "" {
			b.Errorf("bound as %q, %v; override %q", n.Name, err, b.vf(0).Override)
		}
	})
}

// TestRebind: the netdev is a new one afterwards, with the MAC that the PF has set meanwhile.
func TestRebind(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		mac, old := hw.MAC("02:00:00:00:00:42"), b.vf(0)
		b.must(b.k.SetVF(b.pf().Index, 0, hw.VFMAC, hw.VFState{MAC: mac}))
		n, err := b.h.Rebind(b.ctx, b.pf(), old)
		if err != nil || n.MAC != mac || n.Index == old.Netdev.Index || n.Name != old.Netdev.Name {
			b.Errorf("bound again as %+v, %v", n, err)
		}
		b.k.FailAt(1, syscall.EIO)
		_, err = b.h.Rebind(b.ctx, b.pf(), b.vf(0))
		wantError(b.T, err, "vf 0 of ens1f0 (0000:01:10.0): unbind: input/output error")
	})
}

// TestVFDeadAtBoot: a VF without carrier since boot is rebound once, and keeps its MAC.
func TestVFDeadAtBoot(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"for a while": false, "for good": true} {
		t.Run(name, func(t *testing.T) {
			pf := igb()
			pf.DeadProbes, pf.ReportsOwnMAC = 1, false
			if broken {
				pf.BadVFs = []int{0}
			}
			onBench(t, pf, func(b *bench) {
				mac := b.vf(0).Netdev.MAC
				spec := hw.VFSpec{VFState: hw.VFState{MAC: mac}, Policies: map[hw.VFAttr]hw.Policy{hw.VFMAC: hw.Ignore}}
				_, n, err := b.attach(spec)
				if !broken {
					if err != nil || n.MAC != mac || n.Up {
						b.Errorf("revived as %+v, %v; want %s, down", n, err, mac)
					}
					return
				}
				wantError(b.T, err, "vf 0 of ens1f0 (0000:01:10.0): wait for carrier: device not ready, "+
					"also after it was unbound and bound; is it seen in the kernel log (dmesg)?")
				if !errors.Is(err, hw.ErrDeviceFault) {
					b.Errorf("%v does not match ErrDeviceFault", err)
				}
			})
		})
	}
}

// TestRestoreConverges has every single change of a restore fail once. The next attempt completes the rest, from the
// same snapshot.
func TestRestoreConverges(t *testing.T) {
	t.Parallel()
	for k, failed := 1, true; failed; k++ {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			onBench(t, igb(), func(b *bench) {
				before := b.k.String()
				was, n, err := b.attach(privileged())
				b.must(err)
				b.must(b.k.MoveToNS("c", n.Name, "eth0"))
				mtu, queue, on, alias := 9000, 500, true, "mine"
				b.must(b.k.InNS("c").SetLink("eth0", hw.Link{MTU: mtu, TxQLen: queue, Promisc: on, AllMulti: on, Alias: alias,
					Segments: hw.Segments{GSOMaxSize: 30000, GSOMaxSegs: 7, GROMaxSize: 150000}}, hw.LinkGSOMaxSize, hw.LinkGSOMaxSegs, hw.LinkGROMaxSize, hw.LinkMTU, hw.LinkTxQLen, hw.LinkPromisc, hw.LinkAllMulti, hw.LinkAlias))
				err = b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was)
				wantError(b.T, err, "vf 0 of ens1f0 (0000:01:10.0): it is in another network namespace")
				b.k.KillNS("c", 0)

				last := len(b.k.Calls()) + k
				b.k.FailAt(k, syscall.EIO)
				err = b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was)
				// A VF that does not take a MAC is rebound, and then accepts it: that is not a failure.
				if failed = len(b.k.Calls()) >= last; failed && !errors.Is(err, syscall.EIO) &&
					(err != nil || b.k.Calls()[last-1] != "set ens1f0v0: set mac 02:00:00:00:00:01") {
					b.Errorf("call %q failed, but the error is %v", b.k.Calls()[last-1], err)
				}
				if err == nil {
					b.wantHost(before)
				}
				b.k.OnCall(nil)
				b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
				b.wantHost(before)
				calls := len(b.k.Calls())
				b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
				for _, call := range b.k.Calls()[calls:] {
					if !strings.HasSuffix(call, "set up false") {
						b.Errorf("done once more: %s", call)
					}
				}
			})
		})
	}
}

// TestRestoreNetdevConverges: the same for a whole device, with addresses and routes.
func TestRestoreNetdevConverges(t *testing.T) {
	t.Parallel()
	for k, failed := 1, true; failed; k++ {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			onBench(t, bare(), func(b *bench) {
				b.k.AddLink(hw.Link{Name: "nic", Up: true}) // not on the PCI bus
				b.k.AddAddrs("nic", "192.0.2.1/24", "2001:db8::1/64")
				b.k.AddRoutes("nic", hw.Route{Dst: "203.0.113.0/24"}, hw.Route{Dst: "10.0.0.0/8", Gateway: "192.0.2.254"})
				before := b.k.String()
				n, err := b.h.Netdev("nic")
				b.must(err)
				was, err := b.h.SnapshotNetdev(n)
				b.must(err)
				_, err = b.h.PrepareNetdev(n.ID, "02:00:00:00:00:42")
				b.must(err)
				b.must(b.k.MoveToNS("c", "nic", "eth0"))
				b.k.KillNS("c", 0)
				last := len(b.k.Calls()) + k
				b.k.FailAt(k, syscall.EIO)
				err = b.h.RestoreNetdev(n.ID, was)
				if failed = len(b.k.Calls()) >= last; failed && !errors.Is(err, syscall.EIO) {
					b.Errorf("call %q failed, but the error is %v", b.k.Calls()[last-1], err)
				}
				b.k.OnCall(nil)
				b.must(b.h.RestoreNetdev(n.ID, was))
				b.wantHost(before)
				calls := len(b.k.Calls())
				b.must(b.h.RestoreNetdev(n.ID, was))
				if again := b.k.Calls()[calls:]; len(again) > 0 {
					b.Errorf("done once more: %v", again)
				}
			})
		})
	}
}

// TestRestoreWhatIsGone: a device that does not exist any more counts as restored.
func TestRestoreWhatIsGone(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		was, _, err := b.attach(privileged())
		b.must(err)
		b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_numvfs", "0"))
		b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
		b.k.RemovePF("0000:01:00.0")
		b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
		b.must(b.h.RestoreNetdev("0000:01:10.0", was))
		err = b.h.RestoreNetdev("link-9-02:00:00:00:00:09", hw.Snapshot{Link: &hw.LinkState{Name: "veth9"}})
		wantError(b.T, err, "link-9-02:00:00:00:00:09: it is not in the host: gone, or in another network namespace")
	})
}
