//go:build kernel

package rtnl_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// TestUnseenChildOnKernel: a macvlan that was made in a namespace, as by Podman and CNI plugins, is listed nowhere, and found by trying.
func TestUnseenChildOnKernel(t *testing.T) {
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	h := openHost(t)
	n, err := h.Netdev("ct0")
	if err != nil {
		t.Fatal(err)
	}
	check := func(want bool) {
		t.Helper()
		uses, err := h.HostUse(n)
		if err != nil || len(uses) > 0 {
			t.Errorf("used: %q, %v", uses, err)
		}
		if childless, err := h.Childless(n.ID); err != nil || childless != want {
			t.Errorf("childless %v, %v", childless, err)
		}
	}
	check(true)
	podman, err := sandbox.New()
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = "eth0", n.Index, netlink.NsFd(int(podman.FD))
	if err := w.host.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		t.Fatal(err)
	}
	check(false)
	podman.End()
	if err := retry.Poll(t.Context(), 20*time.Millisecond, 10*time.Second, func() (bool, error) { return h.Childless(n.ID) }); err != nil {
		t.Error(err)
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 3 {
		t.Errorf("the host has %v, %v", links, err)
	}
}

// TestHostUseOnKernel: what uses a device is named: ports, children, default routes of any table, and sessions on any port.
func TestHostUseOnKernel(t *testing.T) {
	w := newWorld(t)
	h := openHost(t)
	w.Add(t, "veth", "ct0", "ct1")
	w.Add(t, "veth", "ct2", "ct3")
	check := func(name, want string) {
		t.Helper()
		n, err := h.Netdev(name)
		if err != nil {
			t.Fatal(err)
		}
		uses, err := h.HostUse(n)
		if got := strings.Join(uses, " and "); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	link := func(name string) netlink.Link {
		t.Helper()
		l, err := w.host.LinkByName(name)
		if err == nil {
			err = w.host.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("ct0", "")
	nic := link("ct0")
	link("ct1")
	link("lo")
	addr, err := netlink.ParseAddr("192.0.2.1/24")
	do(err)
	do(w.host.AddrAdd(nic, addr))
	check("ct0", "")

	listener, err := net.Listen("tcp", "192.0.2.1:8443")
	do(err)
	check("ct0", "")
	client, err := net.Dial("tcp", "192.0.2.1:8443")
	do(err)
	server, err := listener.Accept()
	do(err)
	check("ct0", "carries a tcp session (to 192.0.2.1:8443 on ct0)")
	check("ct1", "")
	do(client.Close())
	do(server.Close())
	do(listener.Close())
	check("ct0", "")

	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	do(w.host.RouteAdd(&netlink.Route{LinkIndex: nic.Attrs().Index, Dst: all, Gw: net.ParseIP("192.0.2.9"), Table: 100}))
	check("ct0", "carries the default route of table 100 (through ct0)")
	w.Add(t, "macvlan", "ctmv", "ct0")
	check("ct0", "carries ctmv (macvlan) and carries the default route of table 100 (through ct0)")

	check("ct3", "")
	w.Add(t, "macvlan", "ctdm", "ct3")
	do(w.MoveToNS("docker", "ctdm", "eth0"))
	check("ct3", "carries eth0 (macvlan) in another network namespace")
	check("ct1", "")
	w.EndNS("docker")
	do(retry.Poll(t.Context(), 20*time.Millisecond, 10*time.Second, func() (bool, error) { // the kernel takes a while
		n, err := h.Netdev("ct3")
		if err != nil {
			return false, err
		}
		uses, err := h.HostUse(n)
		return len(uses) == 0, err
	}))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "ctvx"
	do(w.host.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 7, VtepDevIndex: link("ct3").Attrs().Index, Port: 4789}))
	check("ct3", "carries ctvx (vxlan)")

	w.Add(t, "bridge", "ctbr", "")
	port := link("ct2")
	do(w.host.LinkSetMaster(port, link("ctbr")))
	do(w.host.RouteAdd(&netlink.Route{LinkIndex: link("ctbr").Attrs().Index, Dst: all}))
	check("ct2", "is a port of ctbr (bridge) and carries the host's default route (through ctbr)")
	bridge, err := h.Netdev("ctbr")
	do(err)
	if err := h.CheckMovable(bridge); err == nil || err.Error() != "ctbr: a bridge cannot leave its network namespace" {
		t.Error(err)
	}
	veth, err := h.Netdev("ct3")
	do(err)
	do(h.CheckMovable(veth))
}
