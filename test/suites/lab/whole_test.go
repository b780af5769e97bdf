//go:build lab

package lab

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/netdrv/option"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// whole makes a network that hands over the second NIC, which the host has configured.
func whole(t *testing.T) {
	t.Helper()
	Sh(t, "ip link set "+another+" up mtu 1400; ip addr add 192.0.2.10/24 dev "+another+
		"; ip -6 addr add 2001:db8::10/64 nodad dev "+another+"; ip route add 198.51.100.0/24 via 192.0.2.1")
	t.Cleanup(func() { Sh(t, "ip addr flush dev "+another+"; ip link set "+another+" down mtu 1500") })
	Within(t, 10*time.Second, func() string {
		if link := Run(t, "ip", "-o", "link", "show", another); !strings.Contains(link, "LOWER_UP") {
			return "no carrier: " + link
		}
		return ""
	})
	Network(t, "whole", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24",
		"-o", "netdevice="+another, "-o", "mode=passthrough")
}

// TestWholeDevice: the device is the container's alone, and comes back with name, MAC, MTU, state, addresses and routes.
func TestWholeDevice(t *testing.T) {
	asBefore(t)
	whole(t)
	before := host(t) + Sh(t, "ip route; ip -6 route show dev "+another+" | grep -v ^fe80 || true")
	for _, way := range [][]string{{"stop", "-t1"}, {"kill"}, {"rm", "-f"}} {
		Docker(t, "run", "-d", "--name", "db1", "--cap-add", "NET_ADMIN", "--net", "whole", "lab", "sleep", "1000000")
		if _, err := Try("ip", "link", "show", another); err == nil {
			t.Errorf("%s is still in the host", another)
		}
		Exec(t, "db1", "sh", "-c", "ip link set eth0 down; ip link set eth0 mtu 1300 address 02:66:66:66:66:66; ip link set eth0 name gone up")
		Refused(t, "a device that is handed over whole serves one container at a time",
			"run", "--rm", "--net", "whole", "lab", "true")
		Docker(t, append(way, "db1")...)
		Within(t, 10*time.Second, func() string {
			if now := host(t) + Sh(t, "ip route; ip -6 route show dev "+another+" 2>&1 | grep -v ^fe80 || true"); now != before {
				return strings.Join(way, " ") + ": the host is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
		_, _ = Try("docker", "rm", "-f", "db1")
	}
}

// settingsOf is what an administrator sees of the second NIC: as a port of a bridge or bond, and on its own. Lives, counters and states
// are left out.
func settingsOf(t *testing.T) string {
	return Sh(t, `ip -o link show `+another+` | sed 's/^[0-9]*: //; s/ *altname enx[0-9a-f]*//; s/state [A-Z]*//; s/NO-CARRIER,//; s/,LOWER_UP//'
bridge -d link show dev `+another+` | sed 's/^[0-9]*: //; s/state [a-z]*//'
bridge vlan show dev `+another+`; bridge fdb show dev `+another+` | grep static
ip -o addr show dev `+another+` scope global | sed 's/^[0-9]*: //'; ip route show table all dev `+another+` | sed 's/ linkdown//; /fe80:/d'
ip neigh show dev `+another+` nud permanent; tc qdisc show dev `+another+` root
cd /proc/sys/net/ipv4; cat conf/`+another+`/rp_filter conf/`+another+`/arp_ignore conf/`+another+`/arp_announce neigh/`+another+`/gc_stale_time
cat /proc/net/bonding/bond9 2>/dev/null | grep Permanent || true`)
}

// TestEverythingComesBack: what an administrator has configured on a device is there again after a container had it: VLANs of a bridge
// port, a bond, and what NetworkManager does.
func TestEverythingComesBack(t *testing.T) {
	asBefore(t)
	for _, c := range []struct{ name, set, undo string }{
		{"port of a bridge with vlans", `ip link add br9 type bridge vlan_filtering 1; ip link set br9 up; ip link set ` + another + ` master br9 up
			bridge vlan del dev ` + another + ` vid 1; bridge vlan add dev ` + another + ` vid 100 pvid untagged
			bridge vlan add dev ` + another + ` vid 200-210; bridge link set dev ` + another + ` isolated on cost 77 learning off guard on
			bridge fdb add 02:00:00:00:00:99 dev ` + another + ` master static vlan 100`, "ip link del br9"},
		{"port of a bond", `ip link add bond9 address 02:00:00:00:00:b0 type bond mode active-backup miimon 100
			for l in ` + pf + ` ` + another + `; do ip link set $l down; ip link set $l master bond9; done
			ip link set bond9 up`, "ip link del bond9; ip link set " + pf + " down"}, // without any port it would lose its mac
		{"NetworkManager", `ip link set ` + another + ` up; ip addr add 192.0.2.10/24 dev ` + another + ` noprefixroute
			ip route add 192.0.2.0/24 dev ` + another + ` proto kernel scope link src 192.0.2.10 metric 100
			ip route add 198.51.100.0/24 via 192.0.2.1 dev ` + another + ` proto dhcp src 192.0.2.10 metric 100
			ip addr add 203.0.113.10/24 metric 77 dev ` + another + `; ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev ` + another + ` nud permanent
			tc qdisc add dev ` + another + ` root handle 5: pfifo limit 70
			cd /proc/sys/net/ipv4; echo 2 >conf/` + another + `/rp_filter; echo 1 >conf/` + another + `/arp_ignore
			echo 2 >conf/` + another + `/arp_announce; echo 77 >neigh/` + another + `/gc_stale_time`,
			`ip addr flush dev ` + another + `; tc qdisc del dev ` + another + ` root; cd /proc/sys/net/ipv4; echo 0 >conf/` + another + `/rp_filter
			echo 0 >conf/` + another + `/arp_ignore; echo 0 >conf/` + another + `/arp_announce; echo 60 >neigh/` + another + `/gc_stale_time`},
	} {
		t.Run(c.name, func(t *testing.T) {
			Sh(t, c.set)
			t.Cleanup(func() { Sh(t, c.undo+"\nip link set "+another+" down") })
			before := settingsOf(t)
			t.Cleanup(func() { _, _ = Try("docker", "rm", "-f", "db1") })
			Network(t, "whole", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24",
				"-o", "netdevice="+another, "-o", "mode=passthrough", "-o", "force=yes")
			for _, way := range [][]string{{"stop", "-t1"}, {"kill"}} {
				Docker(t, "run", "-d", "--name", "db1", "--net", "whole", "lab", "sleep", "1000000")
				Docker(t, append(way, "db1")...)
				Within(t, 10*time.Second, func() string {
					if now := settingsOf(t); now != before {
						return strings.Join(way, " ") + ": it is\n" + now + "\nbut was\n" + before
					}
					return ""
				})
				Docker(t, "rm", "-f", "db1")
			}
		})
	}
}

// TestRefusals: what must not be done is refused in words that say what, where and why, and nothing changes.
func TestRefusals(t *testing.T) {
	asBefore(t)
	sriov(t, "vfs", "10.1.0.0/24", "-o", "vlan=100", "-o", "numvfs=2")
	id := Docker(t, "network", "inspect", "-f", "{{.Id}}", "vfs")[:12]
	before := host(t)
	mgmt := Sh(t, "ip route show default | sed 's/.*dev //; s/ .*//'")
	Sh(t, "ip link add bridge7 type bridge")
	defer Sh(t, "ip link del bridge7")
	var known []string
	for _, o := range option.Options() {
		known = append(known, o.Name)
	}
	slices.Sort(known)
	for _, c := range []struct {
		want    string
		options []string
	}{
		{"option netdevice: " + mgmt + " carries the host's default route (through " + mgmt + ") and carries a tcp session (to 10.0.2.15:22 on " + mgmt + "); the host would lose that; if that is meant, say force=yes",
			[]string{"mode=passthrough", "netdevice=" + mgmt}},
		{"option netdevice: bridge7: a bridge cannot leave its network namespace; use mode=macvlan on it, " +
			"or hand over one of its ports", []string{"mode=passthrough", "netdevice=bridge7"}},
		{"option netdevice: " + pf + " is used by network " + id + Left(id), []string{"mode=passthrough", "netdevice=" + pf}},
		{"option vlan: 100 is used on " + pf + " (" + pfPCI + ") by network " + id + "; choose another" + Left(id),
			[]string{"netdevice=" + pfPCI, "vlan=100"}},
		{`option vlan: "4095" is not allowed; allowed: 0 to 4094, or keep`, []string{"netdevice=" + pf, "vlan=4095"}},
		{`option "colour": unknown; known are ` + strings.Join(known, ", "), []string{"netdevice=" + pf, "colour=blue"}},
		{"option netdevice: nosuch0: no such device; the NICs of this host are " + nics(t), []string{"netdevice=nosuch0"}},
		{"option netdevice: missing; say which device to use: -o netdevice=NAME", nil},
	} {
		args := []string{"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.9.0.0/24"}
		for _, o := range c.options {
			args = append(args, "-o", o)
		}
		Refused(t, c.want, append(args, "refused")...)
	}
	if now := host(t); withoutLine(now, "bridge7") != before {
		t.Errorf("the host is\n%s\nbut was\n%s", now, before)
	}
}

// nics lists the guest's NICs by their PCI addresses, without VFs.
func nics(t *testing.T) string {
	t.Helper()
	return Sh(t, `for n in /sys/class/net/*; do
		pci=$(readlink -f $n/device | grep -oE '[0-9a-f]{4}(:[0-9a-f]{2}){2}\.[0-7]' | tail -n 1)
		[ -z "$pci" ] || [ -e /sys/bus/pci/devices/$pci/physfn ] || echo "$pci ${n##*/}"
	done | sort | cut -d' ' -f2 | paste -sd, | sed 's/,/, /g'`)
}

// withoutLine is text without the lines that begin with a name.
func withoutLine(text, name string) string {
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		if !strings.HasPrefix(l, name) {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n")
}
