//go:build kernel

package rtnl_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// upPair makes a veth pair that is up and returns the ifindex of its first end.
func (w *world) upPair(t *testing.T, k hw.Kernel, a, b string) int {
	t.Helper()
	w.Add(t, "veth", a, b)
	up, index := true, 0
	links, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != a && l.Name != b {
			continue
		}
		if err := k.SetLink(l.Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
		if l.Name == a {
			index = l.Index
		}
	}
	return index
}

// TestKernelRoutesOfOthers is about routes that other programs add in ways that package hw does not: over two next
// hops, through no link, to a next hop of the other family.
func TestKernelRoutesOfOthers(t *testing.T) {
	k := openKernel(t, sys, "")
	w := newWorld(t)
	first, second := w.upPair(t, k, "ct0", "ct1"), w.upPair(t, k, "ct2", "ct3")
	for i, index := range []int{first, second} {
		if err := k.AddAddr(index, hw.Addr{CIDR: fmt.Sprintf("192.0.%d.1/24", i)}); err != nil {
			t.Fatal(err)
		}
	}
	to := func(cidr string) *net.IPNet {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, r := range []netlink.Route{
		{Dst: to("0.0.0.0/0"), MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: first, Gw: net.IPv4(192, 0, 0, 9)}, {LinkIndex: second, Gw: net.IPv4(192, 0, 1, 9)}}},
		{Dst: to("203.0.113.0/24"), Type: unix.RTN_BLACKHOLE},
	} {
		if err := w.host.RouteAdd(&r); err != nil {
			t.Fatalf("add %v: %v", r, err)
		}
		if len(r.MultiPath) == 0 { // the others go with their links
			t.Cleanup(func() {
				if err := w.host.RouteDel(&r); err != nil {
					t.Error(err)
				}
			})
		}
	}
	over6 := hw.Route{Dst: "198.51.100.0/24", Gateway: "fe80::9", OnLink: true}
	if err := k.AddRoute(second, over6); err != nil {
		t.Fatalf("add %+v: %v", over6, err)
	}
	main := func(index int, r hw.Route) hw.Route {
		r.Index, r.Table, r.Type, r.Protocol = index, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, unix.RTPROT_BOOT
		return r
	}
	want := []hw.Route{main(second, hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.1.9"}), main(second, over6)}
	got, err := k.Routes(second)
	slices.SortFunc(got, func(a, b hw.Route) int { return strings.Compare(a.Dst, b.Dst) })
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("routes of the second link (%v): -want +got\n%s", err, diff)
	}
	all, err := k.Routes(0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(all, main(first, hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.0.9"})) ||
		!slices.ContainsFunc(all, func(r hw.Route) bool { return r.Index == 0 && r.Type == unix.RTN_BLACKHOLE }) {
		t.Errorf("the route over two links or the one through none is missing: %+v", all)
	}
}

// TestKernelListingsWhileLinksChange: a listing that is interrupted by changes is repeated, and concurrent callers do
// not disturb each other.
func TestKernelListingsWhileLinksChange(t *testing.T) {
	k := openKernel(t, sys, "")
	w := newWorld(t)
	index := w.upPair(t, k, "ct0", "ct1")
	stop := make(chan struct{})
	var churn, readers sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				attrs := netlink.NewLinkAttrs()
				attrs.Name = "ct8"
				pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "ct9"}
				if err := errors.Join(w.host.LinkAdd(pair), w.host.LinkDel(pair)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 4 {
		readers.Go(func() {
			for i := range 50 {
				alias := fmt.Sprint(i)
				links, err := k.Links()
				if err != nil || !slices.ContainsFunc(links, func(l hw.Link) bool { return l.Index == index }) {
					t.Errorf("list links: %v, or ct0 is missing", err)
				}
				_, errRoutes := k.Routes(0)
				_, errAddrs := k.Addrs(index)
				_, errVFs := k.VFs(index)
				for _, err := range []error{errRoutes, errAddrs, errVFs, k.SetLink(index, hw.LinkAlias, hw.Link{Alias: alias})} {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	churn.Wait()
}
