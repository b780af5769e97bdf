package mode_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

// A fixture has the modes on a fake kernel, with an empty ledger and no driver.
type fixture struct {
	t      *testing.T
	kernel *hwtest.Kernel
	allocs *alloc.Table
	modes  *mode.Set
}

// onHost runs fn on a fresh host, where waits cost no time.
func onHost(t *testing.T, fn func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		kernel, ledger, counters := hwtest.New(t), store.NewMemory(), &metrics.Counters{}
		host, err := hw.Open(hw.Config{Sys: kernel.Sys, Kernel: kernel, Boot: "boot", Booted: time.Now().Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		allocs := &alloc.Table{Store: ledger, Boot: "boot", Log: zap.NewNop(), Counters: counters}
		pool := &vfpool.Pool{Host: host, Store: ledger, Log: zap.NewNop(), Locks: &keylock.Map{}, Allocations: allocs, Counters: counters}
		fn(&fixture{t, kernel, allocs, mode.New(mode.Env{Host: host, Log: zap.NewNop(), Finder: &vfpool.Finder{Host: host}, Pool: pool,
			RDMA:        &mode.RDMA{Devices: rdma.New(kernel.Sys, kernel.RDMA())},
			Allocations: allocs})})
	})
}

// check parses options and has the mode check them. It returns the network and its mode.
func (f *fixture) check(id string, others []ledger.Network, options ...string) (mode.Mode, *mode.Request, error) {
	f.t.Helper()
	raw := map[string]string{}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		raw[name] = value
	}
	o, err := option.Parse(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := f.modes.Of(o)
	if err != nil {
		f.t.Fatal(err)
	}
	n := ledger.Network{Version: ledger.Version, ID: id, Options: raw}
	p, err := m.Check(f.t.Context(), o, others)
	if err == nil {
		n.Devices, err = m.Make(f.t.Context(), o, p)
	}
	return m, &mode.Request{Network: n, Options: o, Endpoint: "endpoint"}, err
}

// attach claims a device for the request and prepares it.
func (f *fixture) attach(m mode.Mode, r *mode.Request) (*alloc.Allocation, hw.Netdev) {
	f.t.Helper()
	ctx := f.t.Context()
	a, err := m.Claim(ctx, r)
	if err != nil {
		f.t.Fatal(err)
	}
	e := ledger.Endpoint{Version: ledger.Version, Network: r.Network.ID, ID: r.Endpoint, Device: a.Device}
	if taken, err := f.allocs.Start(ctx, a, e); taken || err != nil {
		f.t.Fatalf("start: taken %t, %v", taken, err)
	}
	dev, err := m.Prepare(ctx, a, func(a *alloc.Allocation) error { return f.allocs.Save(ctx, a) })
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.allocs.MarkReady(ctx, a, e); err != nil {
		f.t.Fatal(err)
	}
	return a, dev
}

// release releases a device and its parts as the ledger has them.
func (f *fixture) release(id hw.ID) {
	f.t.Helper()
	ctx := f.t.Context()
	a, err := f.allocs.Get(ctx, id)
	if err != nil {
		f.t.Fatal(err)
	}
	held, err := f.allocs.List(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	all := []*alloc.Allocation{a}
	for _, p := range held {
		if p.PartOf == id {
			all = append(all, p)
		}
	}
	for _, a := range all {
		f.end(ctx, a)
	}
}

func (f *fixture) end(ctx context.Context, a *alloc.Allocation) {
	f.t.Helper()
	m, err := f.modes.ByName(a.Mode)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return f.allocs.Advance(ctx, a, alloc.Freeing) },
		func() error { return m.Release(ctx, a) },
		func() error { return f.allocs.End(ctx, a) },
	} {
		if err := step(); err != nil {
			f.t.Fatalf("release of %s: %v", a.Label, err)
		}
	}
}

func pf(name, pci, mac string) hwtest.PF {
	return hwtest.PF{Name: name, PCI: pci, MAC: hw.MAC(mac), TotalVFs: 4, VFs: 4, Up: true, Behaviour: hwtest.AllVFOps()}
}

// TestModes: a device of each mode is set up as wanted, and restored as it was.
func TestModes(t *testing.T) {
	t.Parallel()
	const wanted = "02:00:00:00:00:42"
	for _, c := range []struct {
		name    string
		options []string
		want    hw.Netdev // what the container gets: type, kind and MAC
		parts   int
	}{
		{name: "sriov", options: []string{"netdevice=ens1f0", "vlan=100"}, want: hw.Netdev{Link: hw.Link{Type: "ether", MAC: wanted}}},
		{name: "bond", options: []string{"netdevice=ens1f0,ens1f1", "bond=active-backup"},
			want: hw.Netdev{Link: hw.Link{Type: "ether", Kind: hw.Macvlan, MAC: wanted}}, parts: 2},
		{name: "passthrough", options: []string{"netdevice=ens2", "mode=passthrough"}, want: hw.Netdev{Link: hw.Link{Type: "ether", MAC: wanted}}},
		{name: "macvlan", options: []string{"netdevice=ens2", "mode=macvlan"},
			want: hw.Netdev{Link: hw.Link{Type: "ether", Kind: hw.Macvlan, MAC: wanted}}},
		{name: "ipvlan", options: []string{"netdevice=ens2", "mode=ipvlan"},
			want: hw.Netdev{Link: hw.Link{Type: "ether", Kind: hw.IPVlan, MAC: "52:54:00:bb:00:00"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onHost(t, func(f *fixture) {
				f.kernel.AddPF(pf("ens1f0", "0000:01:00.0", "52:54:00:aa:00:00"))
				f.kernel.AddPF(pf("ens1f1", "0000:01:00.1", "52:54:00:aa:00:01"))
				f.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", MAC: "52:54:00:bb:00:00", Up: true})
				m, r, err := f.check("n", nil, c.options...)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // drivers are bound to the VFs
				before := f.kernel.String()
				if c.want.Kind != hw.IPVlan {
					r.Options.MAC = wanted
				}
				a, dev := f.attach(m, r)
				if dev.Type != c.want.Type || dev.Kind != c.want.Kind || dev.MAC != c.want.MAC {
					t.Errorf("got a %s device of kind %q with %s, want %s, %q, %s", dev.Type, dev.Kind, dev.MAC,
						c.want.Type, c.want.Kind, c.want.MAC)
				}
				if len(a.Parts) != c.parts || a.HasParts() != (c.parts > 0) {
					t.Errorf("%d parts, want %d", len(a.Parts), c.parts)
				}
				if f.kernel.String() == before {
					t.Error("nothing was set up")
				}
				f.release(a.Device)
				time.Sleep(time.Minute)
				if after := f.kernel.String(); after != before {
					t.Errorf("the host is\n%s\nbut was\n%s", after, before)
				}
			})
		})
	}
}

// TestUnknownMode: an allocation of a mode that this version does not have is an error, not an allocation of another mode.
func TestUnknownMode(t *testing.T) {
	t.Parallel()
	onHost(t, func(f *fixture) {
		for _, name := range []string{"", "SRIOV", "vdpa"} {
			if m, err := f.modes.ByName(name); !errors.Is(err, mode.ErrUnknown) {
				t.Errorf("mode %q is %T, %v; want ErrUnknown", name, m, err)
			}
		}
	})
}

// TestCompetes: only requests that depend on what other endpoints have compete for a device.
func TestCompetes(t *testing.T) {
	t.Parallel()
	onHost(t, func(f *fixture) {
		f.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
		for _, c := range []struct {
			mode string
			mac  hw.MAC
			want bool
		}{
			{"macvlan", "", false},
			{"macvlan", "02:00:00:00:00:42", true},
			{"ipvlan", "", false},
			{"passthrough", "", true},
		} {
			m, r, err := f.check("n", nil, "netdevice=ens2", "mode="+c.mode)
			if err != nil {
				t.Fatal(err)
			}
			if r.Options.MAC = c.mac; m.Competes(r) != c.want {
				t.Errorf("%s with mac %q: competes is %t, want %t", c.mode, c.mac, !c.want, c.want)
			}
		}
	})
}

// TestConflict: what another network has is a conflict that names that network.
func TestConflict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, first, second string
		want                string
	}{
		{"vlan", "netdevice=ens1f0 vlan=7", "netdevice=ens1f0 vlan=7",
			"option vlan: 7 is used on ens1f0 (0000:01:00.0) by network first; choose another"},
		{"whole device", "netdevice=ens1f0 mode=passthrough", "netdevice=ens1f0",
			"option netdevice: ens1f0 (0000:01:00.0) is handed over whole by network first"},
		{"kinds of children", "netdevice=ens1f0 mode=macvlan", "netdevice=ens1f0 mode=ipvlan",
			"option mode: ens1f0 has macvlan children for network first, and a device cannot have both kinds"},
		{"used device", "netdevice=ens1f0", "netdevice=ens1f0 mode=passthrough", "option netdevice: ens1f0 is used by network first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onHost(t, func(f *fixture) {
				f.kernel.AddPF(pf("ens1f0", "0000:01:00.0", "52:54:00:aa:00:00"))
				_, first, err := f.check("first", nil, strings.Fields(c.first)...)
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = f.check("second", []ledger.Network{first.Network}, strings.Fields(c.second)...)
				var met *mode.ConflictError
				if !errors.As(err, &met) || met.Network != "first" || err.Error() != c.want {
					t.Errorf("error is\n  %v\nwant\n  %s", err, c.want)
				}
			})
		})
	}
}
