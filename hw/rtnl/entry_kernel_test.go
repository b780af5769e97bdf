//go:build kernel

package rtnl_test

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
)

// sh runs commands of iproute2 as the administrator.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// shown is what an administrator sees of ct0: addresses without lives and without those of the kernel, routes, neighbours, qdiscs,
// the bridge port. Addresses that are still tested for duplicates are waited for.
func shown(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, c := range []string{"ip -o -4 addr show dev ct0", "ip -o -6 addr show dev ct0", "ip route show table all dev ct0",
		"ip -6 route show table all dev ct0", "ip route show", "ip -6 route show", "ip neigh show dev ct0 nud permanent", "ip neigh show proxy dev ct0",
		"tc qdisc show dev ct0", "tc class show dev ct0", "bridge -d link show dev ct0", "bridge fdb show dev ct0"} {
		for _, line := range strings.Split(sh(t, c), "\n") {
			line = strings.Join(strings.Fields(line), " ")
			for _, cut := range []string{" valid_lft", " expires", " refcnt", " linkdown", " state disabled", " state forwarding"} {
				line, _, _ = strings.Cut(line, cut)
			}
			line = strings.ReplaceAll(line, " tentative", "")
			line = strings.ReplaceAll(line, " nhid 7", "") // the object went with the device, its route is there
			if i := strings.Index(line, ": ct0"); i > 0 {  // the ifindex may be another
				line = line[i:]
			}
			if line != "" && !strings.Contains(line, "fe80::/64") && !strings.HasPrefix(line, "local fe80:") { // the kernel's own
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines) // a route that was added again comes after others
	return strings.Join(slices.Compact(lines), "\n")
}

// settings are what an administrator configures on ct0, whose peer is ct1; e0 is another NIC, br0 a bridge.
var settings = map[string]string{
	"NetworkManager, with a gateway": `ip addr add 192.0.2.10/24 dev ct0 noprefixroute
		ip route add 192.0.2.0/24 dev ct0 proto kernel scope link src 192.0.2.10 metric 100
		ip route add default via 192.0.2.1 dev ct0 proto dhcp src 192.0.2.10 metric 100`,
	"NetworkManager, without": `ip addr add 192.0.2.10/24 dev ct0 noprefixroute
		ip route add 192.0.2.0/24 dev ct0 proto kernel scope link src 192.0.2.10 metric 100`,
	"NetworkManager, IPv6": `ip addr add 2001:db8::10/64 dev ct0 noprefixroute nodad
		ip -6 route add 2001:db8::/64 dev ct0 proto kernel metric 100
		ip -6 route add default via 2001:db8::1 dev ct0 proto static metric 100`,
	"metric of an address": `ip addr add 192.0.2.10/24 metric 77 dev ct0
		ip addr add 2001:db8::10/64 metric 77 dev ct0 nodad`,
	"labels, peers, broadcast, scope": `ip addr add 192.0.2.10/24 brd + label ct0:web dev ct0
		ip addr add 192.0.2.11/24 dev ct0; ip addr add 198.51.100.1 peer 198.51.100.2 dev ct0
		ip addr add 10.0.0.1/32 dev ct0 scope link; ip addr add 2001:db8:1::1 peer 2001:db8:1::2 dev ct0 nodad`,
	"IPv6 with a source": `ip -6 addr add 2001:db8::1/64 dev ct0
		sleep 2.2
		ip -6 route add 2001:db8:1::/48 via 2001:db8::2 dev ct0 src 2001:db8::1 proto static`,
	"link-local": `ip -6 addr add fe80::1/64 dev ct0 nodad
		ip -6 route add 2001:db8:2::/48 via fe80::2 dev ct0`,
	"tables, tos, preference": `ip addr add 192.0.2.10/24 dev ct0
		ip route add 198.51.100.0/24 via 192.0.2.1 dev ct0 table 500 metric 7
		ip route add default via 192.0.2.1 dev ct0 table 500
		ip route add 203.0.113.0/24 dev ct0 scope link src 192.0.2.10 tos 0x10 metric 3
		ip route add 203.0.115.0/24 via inet6 fe80::9 dev ct0 onlink
		ip -6 route add 2001:db8:9::/48 dev ct0 metric 50 pref high`,
	"metrics": `ip addr add 192.0.2.10/24 dev ct0
		ip route add 203.0.114.0/24 via 192.0.2.1 dev ct0 initcwnd 40 initrwnd 30 advmss 1000 mtu lock 1400 quickack 1 congctl bbr
		ip route add 203.0.116.0/24 via 192.0.2.1 dev ct0 realm 5 rto_min 300ms`,
	"two routes to one destination": `ip addr add 192.0.2.10/24 dev ct0
		ip route add 203.0.114.0/24 via 192.0.2.1 dev ct0; ip route append 203.0.114.0/24 via 192.0.2.2 dev ct0`,
	"several next hops": `ip addr add 192.0.2.10/24 dev ct0; ip addr add 198.51.100.10/24 dev e0
		ip route add 203.0.113.0/24 nexthop via 192.0.2.1 dev ct0 weight 1 nexthop via 198.51.100.1 dev e0 weight 3
		ip route add 203.0.114.0/24 nexthop via 192.0.2.1 dev ct0 weight 1 nexthop via 192.0.2.2 dev ct0 weight 2`,
	"several next hops, IPv6": `ip addr add 2001:db8:a::1/64 dev ct0 nodad; ip addr add 2001:db8:b::1/64 dev e0 nodad
		ip -6 route add 2001:db8:c::/48 nexthop via 2001:db8:a::9 dev ct0 weight 2 nexthop via 2001:db8:b::9 dev e0 weight 3`,
	"a route of a next hop object": `ip addr add 192.0.2.10/24 dev ct0; ip nexthop add id 7 via 192.0.2.1 dev ct0
		ip route add 203.0.113.0/24 nhid 7 proto static; ip route show 203.0.113.0/24`,
	"neighbours": `ip addr add 192.0.2.10/24 dev ct0
		ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev ct0 nud permanent
		ip neigh add 2001:db8::77 lladdr 02:00:00:00:00:77 dev ct0 nud permanent router
		ip neigh add proxy 192.0.2.99 dev ct0`,
	"qdisc": `tc qdisc add dev ct0 root pfifo limit 7`,
	"qdiscs and classes": `tc qdisc add dev ct0 root handle 1: htb default 30; tc class add dev ct0 parent 1: classid 1:1 htb rate 90mbit
		tc class add dev ct0 parent 1:1 classid 1:30 htb rate 10mbit ceil 80mbit prio 3
		tc class add dev ct0 parent 1:1 classid 1:20 htb rate 20mbit burst 15k
		tc qdisc add dev ct0 parent 1:30 handle 30: tbf rate 1mbit burst 10k latency 10ms; tc qdisc add dev ct0 clsact`,
	"qdiscs below one that has classes by itself": `tc qdisc add dev ct0 root handle 5: mq
		tc qdisc replace dev ct0 parent 5:1 handle 6: pfifo limit 9`,
	"an address that another machine has": `ip addr add 2001:db8::5/64 dev ct1 nodad; ip addr add 2001:db8::5/64 dev ct0; sleep 2.5
		ip -6 addr show dev ct0 dadfailed | grep -q 2001:db8::5`,
	"bridge port": `ip link set ct0 master br0
		bridge link set dev ct0 cost 77 priority 9 learning off guard on isolated on hairpin on mcast_flood off
		bridge fdb del $(ip -br link show ct1 | awk '{print $3}') dev ct0 master 2>/dev/null || true # learned before learning was off
		bridge fdb add 02:00:00:00:00:99 dev ct0 master static`,
}

// TestEverythingComesBack: what an administrator has configured on a device is there again when it comes home, whatever it is.
func TestEverythingComesBack(t *testing.T) {
	for name, script := range settings {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Add(t, "veth", "ct0", "ct1")
			w.Add(t, "veth", "e0", "e1")
			w.Add(t, "bridge", "br0", "")
			sh(t, "for l in br0 ct0 ct1 e0 e1; do ip link set $l up; done;"+script)
			h := openHost(t)
			n, err := h.Netdev("ct0")
			if err != nil {
				t.Fatal(err)
			}
			before := shown(t)
			was, err := h.SnapshotNetdev(n)
			if err != nil {
				t.Fatal(err)
			}
			lend(t, w, h, n)
			if err := h.RestoreNetdev(n.ID, was); err != nil {
				t.Error(err)
			}
			soon(t, before, shown)
			if again := fmt.Sprint(h.RestoreNetdev(n.ID, was)); again != "<nil>" {
				t.Errorf("once more: %s", again)
			}
		})
	}
}

// lend has a device go to a container and come home.
func lend(t *testing.T, w *world, h *hw.Host, n hw.Netdev) {
	t.Helper()
	if _, err := h.PrepareNetdev(n.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.MoveToNS("c1", "ct0", "eth0"), w.MoveHome("c1", "eth0", "ct0")); err != nil {
		t.Fatal(err)
	}
}

// soon waits for a text: the kernel makes its own routes when a link has carrier.
func soon(t *testing.T, want string, got func(*testing.T) string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); got(t) != want; <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is\n%s\nbut was\n%s", got(t), want)
		}
	}
}

// TestSysctlsComeBack: the settings that a device had of its own are there again, also where /proc/sys is read-only, but for those that
// rtnetlink has nothing for.
func TestSysctlsComeBack(t *testing.T) {
	lost := []string{"net.ipv6.conf.*.accept_ra", "net.ipv6.conf.*.disable_ipv6", "net.ipv6.conf.*.proxy_ndp"}
	for _, writable := range []bool{true, false} {
		t.Run(fmt.Sprint("writable ", writable), func(t *testing.T) {
			w := newWorld(t)
			w.Add(t, "veth", "ct0", "ct1")
			k := openKernel(t, sys, "")
			l, err := k.LinkNamed("ct0")
			if err != nil {
				t.Fatal(err)
			}
			defaults, err := k.Sysctls(0)
			if err != nil {
				t.Fatal(err)
			}
			sh(t, changeSysctls)
			if !writable {
				sh(t, "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys")
				t.Cleanup(func() { sh(t, "umount /proc/sys") })
			}
			h := openHost(t)
			n, err := h.Netdev("ct0")
			if err != nil {
				t.Fatal(err)
			}
			want, err := k.Sysctls(l.Index)
			if err != nil {
				t.Fatal(err)
			}
			changed := 0
			for name, value := range want {
				if value != defaults[name] {
					changed++
				}
			}
			if changed < 60 {
				t.Errorf("only %d sysctls differ", changed)
			}
			if !writable {
				for _, name := range lost {
					want[name] = defaults[name]
				}
			}
			warned, err := h.NotRestored(n)
			if n := len(lost); err != nil || writable && len(warned) > 0 || !writable && len(warned) != n {
				t.Errorf("not restored: %q, %v", warned, err)
			}
			was, err := h.SnapshotNetdev(n)
			if err != nil {
				t.Fatal(err)
			}
			lend(t, w, h, n)
			var partly *hw.UnrestoredError
			if err := h.RestoreNetdev(n.ID, was); writable && err != nil || !writable && !errors.As(err, &partly) {
				t.Errorf("restored: %v", err)
			}
			if n, err = h.Netdev("ct0"); err != nil {
				t.Fatal(err)
			}
			got, err := k.Sysctls(n.Index)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("sysctls (%v): -want +got\n%s", err, diff)
			}
		})
	}
}

// changeSysctls gives ct0 another value than the default of every sysctl that rtnetlink can set, and of some others.
const changeSysctls = `
	for f in /proc/sys/net/ipv4/conf/ct0/* /proc/sys/net/ipv[46]/neigh/ct0/*; do
		case $f in */mc_forwarding | */base_reachable_time | */retrans_time | */unres_qlen) continue ;; esac
		v=$(cat $f)
		case $f in
		*/force_igmp_version | */medium_id | */tag) echo 2 >$f ;;
		*conf*) [ $v = 0 ] && echo 1 >$f || echo 0 >$f ;;
		*_ms) echo $((v + 5000)) >$f ;;
		*) echo $((v + 1)) >$f ;;
		esac
	done
	echo 1 >/proc/sys/net/ipv6/conf/ct0/addr_gen_mode
	echo 0 >/proc/sys/net/ipv6/conf/ct0/accept_ra
	echo 1 >/proc/sys/net/ipv6/conf/ct0/disable_ipv6
	echo 1 >/proc/sys/net/ipv6/conf/ct0/proxy_ndp`

// TestLeftOut: filters of tc are named.
func TestLeftOut(t *testing.T) {
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	k := openKernel(t, sys, "")
	l, err := k.LinkNamed("ct0")
	if err != nil {
		t.Fatal(err)
	}
	sh(t, "tc qdisc add dev ct0 root handle 1: htb; tc qdisc add dev ct0 clsact")
	if got, err := k.LeftOut(l.Index); len(got) > 0 || err != nil {
		t.Errorf("without filters: %q, %v", got, err)
	}
	sh(t, "tc filter add dev ct0 egress protocol ip u32 match ip dst 192.0.2.1/32 flowid 1:1")
	if got, err := k.LeftOut(l.Index); fmt.Sprint(got) != "[filters of qdisc clsact ffff:]" || err != nil {
		t.Errorf("with one: %q, %v", got, err)
	}
}
