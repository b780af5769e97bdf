//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/test/harness/invariant"
)

// machineOps are the operations on the guest and its devices.
var machineOps = []operation{
	{name: "power cut", weight: 2, may: busy, do: func(c *campaign) error {
		err := command("sync")
		c.rebooted()
		return errors.Join(err, powerCut())
	}},
	{name: "power cut at work", weight: 2, may: busy, bound: afterKill, do: func(c *campaign) error {
		line, readResult := c.userCommand()
		delay := c.randomDelay()
		c.describe("after %d ms", delay)
		c.leaks += 2
		c.mayBeLost = true
		// The sync protects the results of earlier operations: the engine does not sync all of its files.
		err := command(fmt.Sprintf("sync; setsid sh -c %s >/dev/null 2>&1 </dev/null & sleep %d.%03d", quoted("", line)[1:], delay/1000, delay%1000))
		c.rebooted()
		if err = errors.Join(err, powerCut()); err != nil {
			return err
		}
		return readResult()
	}},
	{name: "pf down and up", weight: 2, may: busy, do: func(c *campaign) error {
		return errors.Join(command("ip link set "+nic1+" down"), c.duringFault(), command("ip link set "+nic1+" up"))
	}, bound: afterKill},
	{name: "pf unplugged and plugged in", weight: 2, may: busy, do: (*campaign).unplug, bound: afterKill},
	{name: "vf taken from its driver", weight: 3, may: some(hasVF), do: func(c *campaign) error {
		k := c.pick(hasVF)
		pci := c.vfOf(k).Device
		c.describe("%s", pci)
		err := command("echo " + pci + " >/sys/bus/pci/devices/" + pci + "/driver/unbind")
		return errors.Join(err, command("docker restart -t 1 "+k.name))
	}, bound: afterKill},
	{name: "free vf taken from its driver", weight: 1, may: func(c *campaign) bool { return len(c.freeVFs()) > 0 }, do: func(c *campaign) error {
		pci := random(c.rand, c.freeVFs())
		c.describe("%s", pci)
		return command("echo " + pci + " >/sys/bus/pci/devices/" + pci + "/driver/unbind")
	}},
	{name: "name taken in the host", weight: 3, may: some(hasVF), do: (*campaign).takeName, bound: afterKill},
	{name: "device changed from within", weight: 4, may: some(healthy), do: func(c *campaign) error {
		k := c.pick(healthy)
		seen := c.last.seen(k.name)
		change := random(c.rand, []string{"name mine", "mtu 1280", "address 02:00:00:00:66:66", "down", "alias mine", "txqueuelen 7"})
		dev := random(c.rand, seen.Links).Name
		c.describe("%s %s", dev, change)
		k.tampered = true
		// Some changes may fail, such as the MAC of a VF that is not trusted. Some need a device that is down.
		return command(fmt.Sprintf("dev() { nsenter --net=/proc/%d/ns/net ip link set \"$@\"; }; dev %s down; dev %[2]s %s; dev %[2]s up || dev mine up", seen.PID, dev, change))
	}},
}

// vfOf returns the allocation of a container's first VF.
func (c *campaign) vfOf(k *container) (allocation invariant.Allocation) {
	for _, link := range c.last.seen(k.name).Links {
		if l := c.last.Ledger.Allocations[link.PCI]; l.PF != "" {
			return l
		}
	}
	return allocation
}

// hasVF returns whether a healthy container has a VF.
func hasVF(k *container) bool { return healthy(k) && len(vfNets(k)) > 0 }

// rebooted updates the model after a power cut.
func (c *campaign) rebooted() {
	c.live = false // the engine's options were in memory
	c.before.Devices[nic3], c.configured = c.atBoot, nil
	c.noteEngineGone(false)
}

// freeVFs returns the free VFs that are bound to a driver.
func (c *campaign) freeVFs() (free []string) {
	for _, pf := range sorted(c.last.Host.PFs) {
		for _, vf := range pf.VFs {
			if _, allocated := c.last.Ledger.Allocations[vf.PCI]; !allocated && vf.Driver != "" {
				free = append(free, vf.PCI)
			}
		}
	}
	return free
}

// duringFault starts or stops a container while a device is unavailable. The start may be refused.
func (c *campaign) duringFault() error {
	if c.canRun() && c.rand.IntN(2) == 0 {
		k, args := c.newContainer()
		_, err := docker(args...)
		return c.note(k, err == nil)
	}
	if len(c.containers(running)) > 0 {
		return c.ended(c.pick(running), "stop", "-t", "0")
	}
	return nil
}

// unplug unplugs the second NIC and plugs it in again. Containers that lost a device are restarted.
func (c *campaign) unplug() error {
	if err := command("nic unplug 2"); err != nil {
		return err
	}
	on := func(k *container) bool {
		return k.running && slices.ContainsFunc(k.named(), func(n string) bool {
			return c.nets[n] != nil && slices.Contains(c.nets[n].nics, nic2)
		})
	}
	affected := c.containers(on)
	if err := errors.Join(c.duringFault(), command("nic plug 2")); err != nil {
		return err
	}
	var names []string
	for _, k := range affected {
		if k.running {
			k.tampered = false
			names = append(names, k.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	c.describe("then restart %s", strings.Join(names, " "))
	return command("docker restart -t 1 " + strings.Join(names, " "))
}

// takeName gives the name that an allocated VF had in the host to another device, stops the container, and deletes that device.
func (c *campaign) takeName() error {
	k := c.pick(hasVF)
	allocation := c.vfOf(k)
	name := fmt.Sprintf("%sv%d", c.last.Host.PFs[allocation.PF].Name, allocation.VF)
	c.describe("%s", name)
	return errors.Join(command("ip link add "+name+" type dummy"), c.ended(k, "stop", "-t", "1"), command("ip link del "+name))
}
