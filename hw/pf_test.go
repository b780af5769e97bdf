package hw_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// A bench is a PF on a host with a fake kernel, in a synctest bubble in which waits take no time.
type bench struct {
	*testing.T
	k   *hwtest.Kernel
	h   *hw.Host
	ctx context.Context
}

// wait lets time pass in the bubble.
func (b *bench) wait(d time.Duration) { time.Sleep(d) }

// onBench calls fn with a machine that has had time to settle.
func onBench(t *testing.T, pf hwtest.PF, fn func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := hwtest.New(t)
		k.AddPF(pf)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		fn(&bench{t, k, open(t, k), ctx})
	})
}

// pf reads the PF.
func (b *bench) pf() hw.PF {
	b.Helper()
	pf, err := b.h.PF("0000:01:00.0")
	b.must(err)
	return pf
}

// vf reads a VF.
func (b *bench) vf(i int) hw.VF {
	b.Helper()
	vfs, err := b.h.VFs(b.pf())
	b.must(err)
	if i >= len(vfs) {
		b.Fatalf("there are %d vfs, no vf %d", len(vfs), i)
	}
	return vfs[i]
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// attr reads an attribute of the PF.
func (b *bench) attr(name string) string {
	b.Helper()
	text, err := fs.ReadFile(b.k.Sys, "bus/pci/devices/0000:01:00.0/"+name)
	b.must(err)
	return strings.TrimSpace(string(text))
}

// wantHost compares the state of the whole machine.
func (b *bench) wantHost(before string) {
	b.Helper()
	if after := b.k.String(); after != before {
		b.Errorf("the host is\n%s\nbut was\n%s", after, before)
	}
}

// bare is a PF without VFs.
func bare() hwtest.PF {
	pf := igb()
	pf.VFs, pf.Up, pf.CarrierAfter, pf.ResetTakes = 0, false, 3*time.Second, 300*time.Millisecond
	return pf
}

// TestEnableAndDisable: the PF is up and has carrier before the count is written; the VFs stay unbound, each with its
// stable MAC; DisableVFs undoes all of it.
func TestEnableAndDisable(t *testing.T) {
	t.Parallel()
	for _, auto := range []string{"0", "1"} {
		onBench(t, bare(), func(b *bench) {
			b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe", auto))
			before := b.k.String()
			was, err := b.h.SnapshotPF(b.pf())
			b.must(err)
			if want := (hw.PFSnapshot{Up: false, Autoprobe: auto}); was != want {
				b.Errorf("it was %+v, want %+v", was, want)
			}
			carrier := false
			b.k.OnCall(func(_ int, what string) error {
				if strings.Contains(what, "sriov_numvfs 5") {
					carrier = b.k.Link("ens1f0").Carrier
				}
				return nil
			})
			b.must(b.h.EnableVFs(b.ctx, b.pf(), 5))
			if !carrier {
				b.Error("the vfs were made before the pf had carrier")
			}
			if n, a := b.attr("sriov_numvfs"), b.attr("sriov_drivers_autoprobe"); n != "5" || a != "0" {
				b.Errorf("%s vfs, autoprobe %s; want 5 and 0", n, a)
			}
			states, err := b.h.VFStates(b.pf())
			b.must(err)
			for i, s := range states {
				if s.MAC != hw.StableMAC(b.pf(), i) {
					b.Errorf("vf %d has %s", i, s.MAC)
				}
				if vf := b.vf(i); vf.Driver != "" || vf.InUse() != "" {
					b.Errorf("vf %d is bound to %q, in use: %q", i, vf.Driver, vf.InUse())
				}
			}
			calls := len(b.k.Calls())
			b.must(b.h.EnableVFs(b.ctx, b.pf(), 5)) // again, as after a crash
			for _, call := range b.k.Calls()[calls:] {
				if !strings.Contains(call, "autoprobe") {
					b.Errorf("done again: %s", call)
				}
			}
			b.must(b.h.DisableVFs(b.pf(), was))
			b.wantHost(before)
		})
	}
}

// TestNoCable: a PF that never gets carrier is not an error; its VFs can talk to each other.
func TestNoCable(t *testing.T) {
	t.Parallel()
	pf := bare()
	pf.Unplugged = true
	onBench(t, pf, func(b *bench) {
		start := time.Now()
		b.must(b.h.EnableVFs(b.ctx, b.pf(), 1))
		if took := time.Since(start); took > 7*time.Second {
			b.Errorf("it took %s", took)
		}
		b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_numvfs", "0"))
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		if err := b.h.EnableVFs(ctx, b.pf(), 1); !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("error is %v, want the end of the context", err)
		}
	})
}

// TestCountRefused: errors of the kernel are explained.
func TestCountRefused(t *testing.T) {
	t.Parallel()
	onBench(t, bare(), func(b *bench) {
		seen := b.pf()
		b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_numvfs", "3")) // another program was quicker
		wantError(b.T, b.h.EnableVFs(b.ctx, seen, 5), "ens1f0 (0000:01:00.0): write 5 to sriov_numvfs: device busy "+
			"(device or resource busy); the count can only change through 0: remove the vfs first")
		b.must(b.k.WriteAttr("bus/pci/devices/0000:01:00.0/sriov_numvfs", "0"))
		b.k.OnCall(func(_ int, what string) error {
			if strings.Contains(what, "sriov_numvfs") {
				return syscall.ENOMEM
			}
			return nil
		})
		wantError(b.T, b.h.EnableVFs(b.ctx, b.pf(), 5), "ens1f0 (0000:01:00.0): write 5 to sriov_numvfs: cannot allocate "+
			"memory; the kernel log (dmesg) says why the driver refused")
	})
}

// TestDisableRefused: VFs in use are not removed.
func TestDisableRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		take func(b *bench)
		want string
	}{
		"away": {func(b *bench) { b.must(b.k.MoveToNS("c", "ens1f0v1", "eth0")) }, "is in another network namespace"},
		"a port": {func(b *bench) {
			index := b.k.AddLink(hw.Link{Name: "br0", Kind: "bridge"})
			b.must(b.k.SetLink(b.k.Link("ens1f0v1").Index, hw.LinkMaster, hw.Link{Master: index}))
		}, "is a port of another device"},
		"a virtual machine's": {func(b *bench) {
			b.k.LoadDriver("vfio-pci")
			const vf = "bus/pci/devices/0000:01:10.2/"
			b.must(b.k.WriteAttr(vf+"driver/unbind", "0000:01:10.2"))
			b.must(b.k.WriteAttr(vf+"driver_override", "vfio-pci"))
			b.must(b.k.WriteAttr("bus/pci/drivers_probe", "0000:01:10.2"))
		}, "is bound to vfio-pci"},
		"a virtual machine's that is off": {func(b *bench) {
			const vf = "bus/pci/devices/0000:01:10.2/"
			b.must(b.k.WriteAttr(vf+"driver/unbind", "0000:01:10.2"))
			b.must(b.k.WriteAttr(vf+"driver_override", "vfio-pci"))
		}, "is kept for vfio-pci"},
		"a virtual machine's, by a driver of its make": {func(b *bench) {
			b.k.LoadDriver("mlx5_vfio_pci")
			const vf = "bus/pci/devices/0000:01:10.2/"
			b.must(b.k.WriteAttr(vf+"driver/unbind", "0000:01:10.2"))
			b.must(b.k.WriteAttr(vf+"driver_override", "mlx5_vfio_pci"))
			b.must(b.k.WriteAttr("bus/pci/drivers_probe", "0000:01:10.2"))
		}, "is bound to mlx5_vfio_pci"},
		"the host's": {func(b *bench) {
			b.k.AddAddrs("ens1f0v1", "198.51.100.7/24")
		}, "has address 198.51.100.7/24 in the host"},
		"the host's, and up": {func(b *bench) {
			up := true
			b.must(b.k.SetLink(b.k.Link("ens1f0v1").Index, hw.LinkUp, hw.Link{Up: up}))
		}, "is up in the host"},
		"under a vlan": {func(b *bench) {
			b.k.AddLink(hw.Link{Name: "storage", Kind: "vlan", Peer: b.k.Link("ens1f0v1").Index})
		}, "carries storage in the host"},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, igb(), func(b *bench) {
				c.take(b)
				before := b.k.String()
				err := b.h.DisableVFs(b.pf(), hw.PFSnapshot{Autoprobe: "1"})
				wantError(b.T, err, "ens1f0 (0000:01:00.0): remove vfs: vf 1 of ens1f0 (0000:01:10.2) "+c.want+": device busy")
				if !errors.Is(err, hw.ErrBusy) {
					b.Errorf("%v does not match ErrBusy", err)
				}
				b.wantHost(before)
				if taken, err := b.h.Taken(b.vf(1)); err != nil || taken != c.want {
					b.Errorf("taken: %q, %v; want %q", taken, err, c.want)
				}
			})
		})
	}
}

// TestDisableLeavesUp: a PF that was down is set down again without its VFs, unless the host has begun to use it. What
// the kernel configures on every link that is up, on a segment with a router, does not count.
func TestDisableLeavesUp(t *testing.T) {
	t.Parallel()
	learnt := func(b *bench) {
		pf := b.pf().Index
		b.must(b.k.AddAddr(pf, hw.Addr{CIDR: "2001:db8::1/64", ValidSec: 86400}))
		b.must(b.k.AddRoute(pf, hw.Route{Dst: "2001:db8::/64", Protocol: 9}))
		b.must(b.k.AddRoute(pf, hw.Route{Dst: "::/0", Gateway: "fe80::1", Protocol: 9}))
	}
	for name, c := range map[string]struct {
		use func(b *bench)
		up  bool
	}{
		"not used":      {func(*bench) {}, false},
		"under a vlan":  {func(b *bench) { b.k.AddLink(hw.Link{Name: "v5", Kind: "vlan", Peer: b.pf().Index}) }, true},
		"with address":  {func(b *bench) { b.k.AddAddrs("ens1f0", "192.0.2.1/24") }, true},
		"with a lease":  {func(b *bench) { b.must(b.k.AddAddr(b.pf().Index, hw.Addr{CIDR: "192.0.2.1/24", ValidSec: 600})) }, true},
		"with route":    {func(b *bench) { b.k.AddRoutes("ens1f0", hw.Route{Dst: "10.0.0.0/8"}) }, true},
		"port":          {func(b *bench) { stack{b.T, b.k}.under("bridge", "br0", "ens1f0") }, true},
		"by the kernel": {learnt, false},
		"by NetworkManager": {func(b *bench) {
			b.must(b.k.AddAddr(b.pf().Index, hw.Addr{CIDR: "2001:db8::1/64", ValidSec: 86400, Flags: 0x200}))
		}, true},
		"by the kernel, and somebody is logged in": {func(b *bench) {
			learnt(b)
			b.k.Connect("[2001:db8::1]:22")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, bare(), func(b *bench) {
				was, err := b.h.SnapshotPF(b.pf())
				b.must(err)
				b.must(b.h.EnableVFs(b.ctx, b.pf(), 3))
				c.use(b)
				b.must(b.h.DisableVFs(b.pf(), was))
				if pf := b.pf(); pf.NumVFs != 0 || pf.Up != c.up {
					b.Errorf("%d vfs, up: %v; want 0 and %v", pf.NumVFs, pf.Up, c.up)
				}
			})
		})
	}
}

// TestTaken: a VF that the host uses is not free.
func TestTaken(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		free := func(want string) {
			b.Helper()
			if taken, err := b.h.Taken(b.vf(0)); err != nil || taken != want {
				b.Errorf("taken: %q, %v; want %q", taken, err, want)
			}
		}
		free("")
		up, down := true, false
		b.must(b.k.SetLink(b.k.Link("ens1f0v0").Index, hw.LinkUp, hw.Link{Up: up}))
		free("is up in the host")
		b.must(b.k.SetLink(b.k.Link("ens1f0v0").Index, hw.LinkUp, hw.Link{Up: down}))
		free("")
		b.k.AddAddrs("ens1f0v0", "192.0.2.9/24")
		free("has address 192.0.2.9/24 in the host")
		vf := b.vf(1)
		b.must(b.k.MoveToNS("c", "ens1f0v1", ""))
		if taken, err := b.h.Taken(vf); err != nil || taken != "has just left the host" {
			b.Errorf("taken: %q, %v", taken, err)
		}
	})
}

// listedVFs counts how often the VFs of a PF are listed.
type listedVFs struct {
	hw.Kernel
	n int
}

func (k *listedVFs) VFs(pf int) (map[int]hw.VFState, error) {
	k.n++
	return k.Kernel.VFs(pf)
}

// TestManyVFsAreListedOnce: a listing has all VFs of a PF, and a call has 10 s: it is not repeated for each of hundreds.
func TestManyVFsAreListedOnce(t *testing.T) {
	t.Parallel()
	for name, pf := range map[string]hwtest.PF{
		"ethernet":               {Behaviour: hwtest.IGB(), MAC: "52:54:00:aa:00:00"},
		"infiniband":             {Behaviour: hwtest.IPoIB(), Driver: "mlx5_core", VFDriver: "mlx5_core"},
		"infiniband, with files": {Behaviour: hwtest.IPoIBVendorTree(), Driver: "mlx5_core", VFDriver: "mlx5_core"},
		"without operations":     {Behaviour: hwtest.Virtio(), MAC: "52:54:00:aa:00:00"},
	} {
		t.Run(name, func(t *testing.T) {
			pf.Name, pf.PCI, pf.TotalVFs, pf.Up = "ens1f0", "0000:01:00.0", 200, true
			onBench(t, pf, func(b *bench) {
				k := &listedVFs{Kernel: b.k}
				h := openWith(t, b.k, k)
				b.must(h.EnableVFs(b.ctx, b.pf(), 200))
				if k.n > 2 {
					b.Errorf("listed %d times", k.n)
				}
			})
		})
	}
}
