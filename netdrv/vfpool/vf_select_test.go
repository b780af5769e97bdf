package vfpool_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// pf returns a PF with two VFs, p0v0 and p0v1 for n 0, on NUMA node n.
func pf(n int) vfpool.PF {
	name := fmt.Sprintf("p%d", n)
	id := hw.ID(fmt.Sprintf("0000:0%d:00.0", n))
	p := vfpool.PF{PF: hw.PF{Netdev: hw.Netdev{Link: hw.Link{Name: name, Up: true, Carrier: true}, ID: id}, Node: n},
		States: map[int]hw.VFState{}}
	for i := range 2 {
		p.VFs = append(p.VFs, hw.VF{PF: name, Index: i, PCI: fmt.Sprintf("%sv%d", name, i)})
		p.States[i] = hw.VFState{MAC: hw.MAC(fmt.Sprintf("02:00:00:00:0%d:0%d", n, i))}
	}
	return p
}

// held returns an allocation of a VF of PF n.
func held(pf int, device hw.ID, state alloc.State, spec hw.VFState) *alloc.Allocation {
	return &alloc.Allocation{Record: alloc.Record{Device: device, PF: fmt.Sprintf("0000:0%d:00.0", pf), Label: string(device),
		State: state, Network: "n", Endpoint: "e", VFSpec: hw.VFSpec{VFState: spec}}}
}

// TestSelect: the order in which VFs are preferred, and what is said if none is free. No kernel and no ledger take part.
func TestSelect(t *testing.T) {
	t.Parallel()
	const wanted = hw.MAC("02:00:00:00:00:99")
	down := pf(0)
	down.Carrier = false
	for _, c := range []struct {
		name string
		s    vfpool.Selector
		used map[string]string // VFs that the host uses, and how
		want hw.ID
		err  string
		soon bool
	}{
		{name: "the first", want: "p0v0"},
		{name: "the PF with the fewest in use", s: vfpool.Selector{Held: alloc.Set{"p0v0": held(0, "p0v0", alloc.Lent, hw.VFState{})}},
			want: "p1v0"},
		{name: "the PF with the most in use", s: vfpool.Selector{Held: alloc.Set{"p1v0": held(1, "p1v0", alloc.Lent, hw.VFState{})},
			Want: option.Container{Policy: option.PolicyPack}}, want: "p1v1"},
		{name: "the one with the wanted MAC", s: vfpool.Selector{Want: option.Container{MAC: "02:00:00:00:01:01"}}, want: "p1v1"},
		{name: "the wanted index", s: vfpool.Selector{Want: option.Container{VF: "1"}}, want: "p0v1"},
		{name: "one of the network's", s: vfpool.Selector{Network: []int{1}}, want: "p0v1"},
		{name: "the NUMA node", s: vfpool.Selector{Want: option.Container{NUMA: option.NUMA{Given: true, Node: 1}}}, want: "p1v0"},
		{name: "carrier before the NUMA node", s: vfpool.Selector{PFs: []vfpool.PF{down, pf(1)},
			Want: option.Container{NUMA: option.NUMA{Given: true, Node: 0}}}, want: "p1v0"},
		{name: "an explicit affinity before carrier", s: vfpool.Selector{PFs: []vfpool.PF{down, pf(1)},
			Preferred: alloc.Affinity{Device: "p0v1"}}, want: "p0v1"},
		{name: "carrier before an implicit affinity", s: vfpool.Selector{PFs: []vfpool.PF{down, pf(1)},
			Preferred: alloc.Affinity{Device: "p0v1", Implicit: true}}, want: "p1v0"},
		{name: "an implicit affinity before the policy", s: vfpool.Selector{Preferred: alloc.Affinity{Device: "p0v1", Implicit: true},
			Held: alloc.Set{"p0v0": held(0, "p0v0", alloc.Lent, hw.VFState{})}}, want: "p0v1"},
		{name: "one that the host does not use", used: map[string]string{"p0v0": "has an address"}, want: "p0v1"},

		{name: "all in use", s: vfpool.Selector{PFs: []vfpool.PF{pf(0)}, Held: alloc.Set{
			"p0v0": held(0, "p0v0", alloc.Lent, hw.VFState{}), "p0v1": held(0, "p0v1", alloc.Freeing, hw.VFState{})}},
			err:  "p0 (0000:00:00.0): all 2 vfs are in use: p0v0 is held by endpoint e of network n; p0v1 is on its way back from endpoint e",
			soon: true},
		{name: "all in use by the host", s: vfpool.Selector{PFs: []vfpool.PF{pf(0)}, Missing: []error{errors.New("p1 is gone")}},
			used: map[string]string{"p0v0": "has an address", "p0v1": "is in a vm"},
			err:  "p0 (0000:00:00.0): all 2 vfs are in use: vf 0 of p0 (p0v0) has an address; vf 1 of p0 (p0v1) is in a vm; p1 is gone"},
		{name: "the MAC is in use", s: vfpool.Selector{Want: option.Container{MAC: wanted},
			Held: alloc.Set{"p0v0": held(0, "p0v0", alloc.Lent, hw.VFState{MAC: wanted})}},
			err: "mac address 02:00:00:00:00:99: p0v0 is held by endpoint e of network n"},
		{name: "the MAC of a quarantined VF", s: vfpool.Selector{Want: option.Container{MAC: wanted},
			Held: alloc.Set{"p0v0": held(0, "p0v0", alloc.Quarantined, hw.VFState{MAC: wanted})}}, want: "p1v0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.s
			if s.PFs == nil {
				s.PFs = []vfpool.PF{pf(0), pf(1)}
			}
			s.InUse = func(vf hw.VF) (string, error) { return c.used[vf.PCI], nil }
			got, err := s.Select()
			if c.err == "" {
				if err != nil || got.VF.ID() != c.want {
					t.Errorf("selected %s, %v; want %s", got.VF.ID(), err, c.want)
				}
				return
			}
			var busy *vfpool.BusyError
			if !errors.As(err, &busy) || err.Error() != c.err || busy.Soon != c.soon {
				t.Errorf("error is\n  %v (%T)\nwant\n  %s (soon %t)", err, err, c.err, c.soon)
			}
		})
	}
}

// TestManyVFsInUse: the error about a NIC with many VFs has some of the reasons, and says how many there are.
func TestManyVFsInUse(t *testing.T) {
	big := vfpool.PF{PF: hw.PF{Netdev: hw.Netdev{ID: "0000:01:00.0", Link: hw.Link{Name: "p0"}}}}
	for i := range 128 {
		big.VFs = append(big.VFs, hw.VF{PF: "p0", Index: i, PCI: fmt.Sprintf("0000:01:%02x.%d", 16+i/8, i%8)})
	}
	s := vfpool.Selector{PFs: []vfpool.PF{big}, InUse: func(hw.VF) (string, error) { return "has an address", nil }, Missing: []error{errors.New("p1 is gone")}}
	_, err := s.Select()
	if text := fmt.Sprint(err); len(text) > 500 || strings.Count(text, "has an address") != 8 ||
		!strings.HasSuffix(text, "; and 120 more, see passthroughctl vfs; p1 is gone") {
		t.Errorf("error of %d bytes: %s", len(text), text)
	}
}
