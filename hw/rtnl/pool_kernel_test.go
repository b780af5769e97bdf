//go:build kernel

package rtnl_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/mellanox/passthrough/hw"
)

// TestKernelRemovesAtOnce: more children are removed at the same time than there are sockets for it, and links are
// listed meanwhile.
func TestKernelRemovesAtOnce(t *testing.T) {
	k := openKernel(t, sys, "")
	parent := newWorld(t).parent(t)
	before, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, index := range children(t, k, parent) {
		all.Go(func() { remove(t, k, index) })
		all.Go(func() {
			if _, err := k.Links(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after, err := k.Links(); err != nil || len(after) != len(before) {
		t.Errorf("%d links, %v; there were %d", len(after), err, len(before))
	}
}

// BenchmarkRemoveLinks measures the removal of one of many children, one after the other and all at once. When 200
// containers were stopped at once and each removal waited for those before it, the calls took longer than an engine
// waits for them.
func BenchmarkRemoveLinks(b *testing.B) {
	k := openKernel(b, sys, "")
	parent := newWorld(b).parent(b)
	for name, removeAll := range map[string]func(indexes []int){
		"in turn": func(indexes []int) {
			for _, index := range indexes {
				remove(b, k, index)
			}
		},
		"at once": func(indexes []int) {
			var all sync.WaitGroup
			for _, index := range indexes {
				all.Go(func() { remove(b, k, index) })
			}
			all.Wait()
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				indexes := children(b, k, parent)
				b.StartTimer()
				removeAll(indexes)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*childCount), "us/link")
		})
	}
}

// parent creates a device that is up, for children, and returns its ifindex.
func (w *world) parent(t testing.TB) int {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ct0"}, PeerName: "ct1"}
	if err := w.host.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	if err := w.host.LinkSetUp(pair); err != nil {
		t.Fatal(err)
	}
	return pair.Attrs().Index
}

// childCount is how many children there are.
const childCount = 40

// children makes them, and returns their indexes.
func children(t testing.TB, k hw.Kernel, parent int) (indexes []int) {
	t.Helper()
	for i := range childCount {
		if err := k.CreateLink(hw.NewLink{Name: fmt.Sprintf("ct1%d", i), Kind: hw.Macvlan, Mode: "bridge", Parent: parent}); err != nil {
			t.Fatal(err)
		}
	}
	links, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Kind == hw.Macvlan {
			indexes = append(indexes, l.Index)
		}
	}
	return indexes
}

// remove removes one.
func remove(t testing.TB, k hw.Kernel, index int) {
	t.Helper()
	if err := k.RemoveLink(index); err != nil {
		t.Error(err)
	}
}
