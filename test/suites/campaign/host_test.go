//go:build lab

package campaign

import (
	"errors"
	"fmt"
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
	{name: "children left behind", weight: 3, may: some(leavesVF), do: (*campaign).leaveChildren},
	{name: "xdp left behind", weight: 2, may: some(hasVF), do: func(c *campaign) error {
		k := c.pick(hasVF)
		dev := c.linkOn(k, vfNets(k)[0])
		if dev == "" {
			return nil
		}
		c.describe("%s", dev)
		err := command(fmt.Sprintf("nsenter --net=/proc/%d/ns/net %s xdp:%s", c.last.seen(k.name).PID, looker, dev))
		return errors.Join(err, c.ended(k, "stop", "-t", "1"))
	}},
	{name: "nic used by the host", weight: 2, may: func(c *campaign) bool { return c.nets["whole"] == nil }, do: (*campaign).hostUses},
}

// vfNets returns the networks of VFs, without bonds, that a container is on.
func vfNets(k *container) []string {
	return slices.DeleteFunc(k.named(), func(n string) bool { return n != "one" && n != "two" && n != "far" })
}

// leavesVF returns whether a container can be disconnected from a network of VFs and runs on.
func leavesVF(k *container) bool { return doubled(k) && len(vfNets(k)) > 0 }

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
// containers that have one are restarted, several times if the VFs' driver takes longer to bind than the engine waits.
func (c *campaign) resetPF() error {
	nic := random(c.rand, []string{nic1, nic2})
	c.describe("%s", nic)
	c.pfReset = true
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
		if err := command("n=0; until docker restart -t 1 " + k.name + " 2>/run/restart.err; do n=$((n+1)); [ $n -lt 6 ] || { cat /run/restart.err >&2; exit 1; }; sleep 2; done"); err != nil {
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

// leaveChildren creates links on a container's VF and disconnects it. Nothing of them may be left: they would work over the next tenant's
// device.
func (c *campaign) leaveChildren() error {
	k := c.pick(leavesVF)
	network := random(c.rand, vfNets(k))
	kind := random(c.rand, []string{"macvlan mode bridge", "ipvlan mode l2", "vlan id 7"})
	dev := c.linkOn(k, network)
	if dev == "" {
		return nil
	}
	c.describe("%s on %s, %s", kind, dev, network)
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

// hostUses puts the third NIC to use in the host. It must not be handed over whole.
func (c *campaign) hostUses() error {
	use := random(c.rand, []struct{ what, up, down string }{
		{"hostvlan", "ip link add link enp3s0 name hostvlan type vlan id 99", "ip link del hostvlan"},
		{"hostmv", "ip link add link enp3s0 name hostmv type macvlan mode bridge", "ip link del hostmv"},
		{"hostbr", "ip link add hostbr type bridge; ip link set enp3s0 master hostbr", "ip link del hostbr"},
	})
	c.describe("%s", use.what)
	i := slices.IndexFunc(plans, func(p plan) bool { return p.name == "whole" })
	args := append(append([]string{"network", "create"}, plans[i].args...), "--ipam-driver", Plugin, "--subnet", plans[i].subnet, "whole")
	return errors.Join(command("set -e; "+use.up), refused(use.what, args...), command(use.down))
}
