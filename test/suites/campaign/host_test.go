//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// hostOps are what an administrator does to the NICs under running containers, and what containers leave on their devices.
var hostOps = []operation{
	{name: "vf reset", weight: 2, may: some(hasVF), do: func(c *campaign) error {
		k := c.pick(hasVF)
		pci := c.vfOf(k).Device
		c.describe("%s", pci)
		return command("echo 1 >/sys/bus/pci/devices/" + pci + "/reset")
	}},
	{name: "pf reset", weight: 2, long: true, may: some(hasVF), bound: afterKill, do: (*campaign).resetPF},
	{name: "children left behind", weight: 4, may: func(c *campaign) bool { return len(c.containers(c.canLeave)) > 0 },
		do: (*campaign).leaveChildren},
	{name: "xdp left behind", weight: 2, may: some(hasDevice), do: func(c *campaign) error {
		k := c.pick(hasDevice)
		dev := c.linkOn(k, random(c.rand, deviceNets(k)))
		if dev == "" {
			return nil
		}
		c.describe("%s", dev)
		err := command(fmt.Sprintf("nsenter --net=/proc/%d/ns/net %s xdp:%s", c.last.seen(k.name).PID, looker, dev))
		return errors.Join(err, c.ended(k, "stop", "-t", "1"))
	}},
	{name: "nic used by the host", weight: 3, may: (*campaign).nic3Free, do: (*campaign).hostUses},
	{name: "nic configured by the host", weight: 3, may: (*campaign).nic3Free, do: (*campaign).configure},
}

// vfNets returns the networks of VFs, without bonds, that a container is on.
func vfNets(k *container) []string {
	return slices.DeleteFunc(k.named(), func(n string) bool { return n != "one" && n != "two" && n != "far" && n != "plain" })
}

// deviceNets returns the networks of VFs or of a whole device that a container is on.
func deviceNets(k *container) []string {
	if k.has("whole") {
		return append(vfNets(k), "whole")
	}
	return vfNets(k)
}

// hasDevice returns whether a healthy container has a VF or a whole device.
func hasDevice(k *container) bool { return healthy(k) && len(deviceNets(k)) > 0 }

// canLeave returns whether a container can be disconnected from a network of deviceNets and runs on. One that is on no other network is
// connected to one before.
func (c *campaign) canLeave(k *container) bool {
	return hasDevice(k) && (len(k.nets) > 1 || c.connectable(k))
}

// nic3Free returns whether no container has the third NIC.
func (c *campaign) nic3Free() bool {
	_, lent := c.last.Ledger.Allocations[pciOf(nic3)]
	return !lent
}

// linkOn returns the name of the device that a container has for a network; "" if it has changed since the last view.
func (c *campaign) linkOn(k *container, network string) string {
	seen := c.last.seen(k.name)
	for _, l := range seen.Links {
		if slices.Contains(l.Addrs, seen.Endpoints[network].Address) {
			return l.Name
		}
	}
	return ""
}

// resetPF resets a PF, and sets it down and up, so that its driver sets it up again. The drivers of its VFs do not notice, so the
// containers that have one are restarted.
func (c *campaign) resetPF() error {
	nic := random(c.rand, []string{nic1, nic2})
	c.describe("%s", nic)
	line := "echo 1 >/sys/bus/pci/devices/" + pciOf(nic) + "/reset"
	if c.last.Host.Devices[nic].Up {
		line += "; ip link set " + nic + " down; ip link set " + nic + " up"
	}
	if err := command(line); err != nil {
		return err
	}
	for _, k := range c.containers(running) {
		if !c.hasVFOf(k, nic) {
			continue
		}
		c.describe("restart %s", k.name)
		k.tampered = false
		if _, err := docker("restart", "-t", "1", k.name); err != nil {
			return err
		}
	}
	return nil
}

// hasVFOf returns whether a container has a VF of a PF.
func (c *campaign) hasVFOf(k *container, nic string) bool {
	for _, l := range c.last.seen(k.name).Links {
		if c.last.Ledger.Allocations[l.PCI].PF == pciOf(nic) {
			return true
		}
	}
	// The VFs of a bond are below the container's device.
	return k.has("bond")
}

// leaveChildren creates links on a container's VF, or whole device, and disconnects it. Nothing of them may be left: they would work over
// the next tenant's device.
func (c *campaign) leaveChildren() error {
	k := c.pick(c.canLeave)
	network := random(c.rand, deviceNets(k))
	kinds := []string{"macvlan mode bridge", "ipvlan mode l2"}
	if network == "plain" || network == "whole" { // igb refuses a VLAN in a VLAN
		kinds = append(kinds, "vlan id 7")
	}
	kind := random(c.rand, kinds)
	dev := c.linkOn(k, network)
	if dev == "" {
		return nil
	}
	c.describe("%s on %s, %s", kind, dev, network)
	if len(k.nets) < 2 {
		c.describe("connected to")
		if err := c.connect(k); err != nil || len(k.nets) < 2 {
			return err
		}
	}
	in := fmt.Sprintf("nsenter --net=/proc/%d/ns/net ip ", c.last.seen(k.name).PID)
	err := command("set -e; " + in + "link add link " + dev + " name left0 type " + kind + "; " + in + "link set left0 up")
	if err != nil {
		return err
	}
	if _, err := docker("network", "disconnect", network, k.name); err != nil {
		return err
	}
	delete(k.nets, network)
	return Await(reconcileTimeout, func() string {
		links, err := try(in + "-br link")
		if err != nil {
			return err.Error()
		}
		if strings.Contains(links, "left0") {
			return "a link is left of a device that has gone home:\n" + links
		}
		return ""
	})
}

// hostUses puts the third NIC to use in the host. It must not be handed over whole: neither may a network be created, nor a container
// start on one that exists.
func (c *campaign) hostUses() error {
	use := random(c.rand, []struct{ what, up, down string }{
		{"hostvlan", "ip link add link enp3s0 name hostvlan type vlan id 99", "ip link del hostvlan"},
		{"hostmv", "ip link add link enp3s0 name hostmv type macvlan mode bridge", "ip link del hostmv"},
		{"hostbr", "ip link add hostbr type bridge; ip link set enp3s0 master hostbr", "ip link del hostbr"},
	})
	c.describe("%s", use.what)
	i := slices.IndexFunc(plans, func(p plan) bool { return p.name == "whole" })
	args := append(append([]string{"network", "create"}, plans[i].args...), "--ipam-driver", Plugin, "--subnet", plans[i].subnet, "whole")
	if c.nets["whole"] != nil {
		c.describe("(run)")
		args = []string{"run", "--rm", "--name", "refused", "--net", "whole", "lab", "true"}
	}
	return errors.Join(command("set -e; "+use.up), refused(use.what, args...), command(use.down+"; docker rm -f refused >/dev/null 2>&1"))
}

// hostConfigs are addresses and routes as NetworkManager and others set them: the connected route is their own, with a metric.
var hostConfigs = map[string]struct{ up, down string }{
	"ipv4": {`ip addr add 172.30.1.5/24 dev enp3s0 noprefixroute
ip route add 172.30.1.0/24 dev enp3s0 proto kernel scope link src 172.30.1.5 metric 101
ip route add 172.31.0.0/16 via 172.30.1.1 dev enp3s0 proto dhcp src 172.30.1.5 metric 101`,
		"ip addr del 172.30.1.5/24 dev enp3s0; ip route flush dev enp3s0 metric 101"},
	"ipv6": {`ip addr add 2001:db8:7::5/64 dev enp3s0 noprefixroute
ip -6 route add 2001:db8:7::/64 dev enp3s0 proto kernel metric 102
ip -6 route add 2001:db8:8::/48 via 2001:db8:7::1 dev enp3s0 proto static metric 102`,
		"ip -6 route flush dev enp3s0 metric 102; ip addr del 2001:db8:7::5/64 dev enp3s0"},
	"static": {"ip route add 100.64.0.0/10 via 192.0.2.1 dev enp3s0 proto static src 192.0.2.7 metric 500 mtu 1400 initcwnd 20",
		"ip route del 100.64.0.0/10 metric 500"},
}

// configure adds addresses and routes to the third NIC, or removes them. From then on they have to come back with it.
func (c *campaign) configure() error {
	what := random(c.rand, slices.Sorted(maps.Keys(hostConfigs)))
	added := !c.configured[what]
	line := hostConfigs[what].up
	if !added {
		line = hostConfigs[what].down
	}
	c.describe("%s: %v", what, added)
	if err := command("set -e\n" + line); err != nil {
		return err
	}
	v, err := look()
	if err != nil {
		return err
	}
	if was, now := c.before.Devices[nic3], v.Host.Devices[nic3]; slices.Equal(was.Routes, now.Routes) {
		return fmt.Errorf("the routes are as before: %v", now.Routes)
	}
	c.before.Devices[nic3] = v.Host.Devices[nic3]
	if c.configured == nil {
		c.configured = map[string]bool{}
	}
	c.configured[what] = added
	return nil
}
