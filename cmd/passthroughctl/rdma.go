package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
)

// rdmaColumn is the column of RDMA devices, which a table has if any row has one.
const rdmaColumn = "RDMA"

// openRDMA opens the RDMA devices of this machine, which are those of the network namespace of this process.
func openRDMA() *rdma.Host { return rdma.New(os.DirFS("/sys"), rtnl.RDMA{}) }

// rdmaText names RDMA devices, each with the state of its first port unless that is active.
func rdmaText(devices []rdma.Device) string {
	var names []string
	for _, d := range devices {
		if len(d.Ports) > 0 && d.Ports[0].State != "active" {
			d.Name += " " + d.Ports[0].State
		}
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

// addRDMA adds to networks the RDMA devices of their devices. One that is in a container has none here.
func (r *statusReport) addRDMA(host *hw.Host, of *rdma.Host) (err error) {
	if r.RDMANetns, err = of.Mode(); err != nil {
		return err
	}
	devices, err := of.Devices()
	if err != nil {
		return err
	}
	for i, n := range r.Networks {
		for _, d := range rdmaOf(host, devices, n.Devices) {
			r.Networks[i].RDMA = append(r.Networks[i].RDMA, d.Name)
		}
	}
	return nil
}

// rdmaOf returns the RDMA devices of netdevs of the host.
func rdmaOf(host *hw.Host, devices []rdma.Device, netdevs []string) (of []rdma.Device) {
	if len(devices) == 0 {
		return nil
	}
	for _, name := range netdevs {
		if n, err := host.Netdev(name); err == nil {
			of = append(of, rdma.Of(devices, n.ID.PCI(), n.Index)...)
		}
	}
	return of
}

// checkRDMA checks what RDMA programs in containers need, if networks have devices with RDMA. root is the host's root directory, here are
// its addresses.
func checkRDMA(host *hw.Host, of *rdma.Host, root fs.FS, here []netip.Addr, networks []admin.Network) ([]finding, error) {
	const subject = "rdma"
	devices, err := of.Devices()
	if err != nil || len(devices) == 0 {
		return nil, err
	}
	mode, err := of.Mode()
	if err != nil {
		return nil, err
	}
	var users []string
	for _, n := range networks {
		if len(rdmaOf(host, devices, n.Devices)) > 0 {
			users = append(users, n.Name)
		}
	}
	if len(users) == 0 {
		return []finding{{healthy, subject, fmt.Sprintf("%d devices, netns mode %s; no network uses them", len(devices), mode), ""}}, nil
	}
	findings := []finding{{healthy, subject, fmt.Sprintf("%d devices, netns mode %s", len(devices), mode), ""}}
	switch mode {
	case rdma.Exclusive:
		findings[0].Text += ": a container has that of its VF alone, if the plugin sees the engine's network namespaces (docs/hpc.md)"
	case rdma.Shared:
		findings[0] = finding{warning, subject, fmt.Sprintf("netns mode is shared: with /dev/infiniband, containers of network %s see all %d RDMA devices of the "+
			"host, and not only their own", strings.Join(users, ", "), len(devices)), "docs/hpc.md says how to set exclusive mode"}
	}
	for _, d := range devices {
		if !slices.ContainsFunc(d.Files, func(f string) bool { return strings.HasPrefix(f, "uverbs") }) {
			findings = append(findings, finding{warning, subject, d.Name + " has no file uverbs in /dev/infiniband: no program can use it", "modprobe ib_uverbs"})
		}
	}
	if _, err := fs.Stat(root, "dev/infiniband/rdma_cm"); errors.Is(err, fs.ErrNotExist) {
		findings = append(findings, finding{warning, subject, "/dev/infiniband/rdma_cm is missing: programs cannot connect by IP address", "modprobe rdma_ucm"})
	}
	gids, err := checkGIDs(of, devices, here)
	return append(append(findings, gids...), checkMemlock(root)...), err
}

// netnsFolder is where a managed plugin has the engine's network namespaces: the mount "netns" of plugin/config.json.
const netnsFolder = "/host/netns"

// checkNamespaces warns if RDMA devices have to be moved into the network namespaces of containers, and the plugin does not see those. source is
// what a managed plugin has in their place.
func checkNamespaces(of *rdma.Host, source string) []finding {
	if mode, err := of.Mode(); err != nil || mode != rdma.Exclusive || source != "/proc/irq" {
		return nil
	}
	return []finding{{warning, "rdma", "the plugin does not see the engine's network namespaces: no RDMA device goes into a container",
		"docker plugin set passthrough:latest netns.source=/var/run/docker/netns, as docs/hpc.md says"}}
}

// checkGIDs warns of devices of the host that have GIDs of network devices in other namespaces. A GID is that of one here if here has its address.
func checkGIDs(of *rdma.Host, devices []rdma.Device, here []netip.Addr) (findings []finding, _ error) {
	for _, d := range devices {
		if d.Netdev == 0 || len(d.Ports) == 0 || d.Ports[0].Layer != "Ethernet" || len(here) == 0 { // the GIDs of a container's device are there, too
			continue
		}
		gids, err := of.GIDs(d)
		if err != nil {
			return nil, err
		}
		foreign := slices.DeleteFunc(gids, func(g rdma.GID) bool { return g.Addr.IsLinkLocalUnicast() || slices.Contains(here, g.Addr) })
		if len(foreign) == 0 {
			continue
		}
		first := foreign[0]
		findings = append(findings, finding{warning, "rdma", fmt.Sprintf("%s has %d GIDs of other network namespaces, such as %d, %s of %s: a program that "+
			"takes one by its index from outside of its namespace transfers nothing", d.Name, len(foreign), first.Index, first.Addr, first.Netdev),
			"choose one by gid_attrs/ndevs and its address, or connect with rdma_cm"})
	}
	return findings, nil
}

// hostAddrs returns the addresses of this network namespace.
func hostAddrs() (all []netip.Addr) {
	addrs, _ := net.InterfaceAddrs() // without them there is nothing to compare GIDs with
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, prefix.Addr())
		}
	}
	return all
}

// enoughMemlock is how much memory RDMA programs may lock at least, in bytes, before that is worth a warning: small buffers of one process.
const enoughMemlock = 1 << 30

// checkMemlock warns if containers may lock little memory. They have the limit of the process that starts them, which is a child of
// containerd, unless the engine or docker run gives them another.
func checkMemlock(root fs.FS) []finding {
	var engine struct {
		Ulimits map[string]any `json:"default-ulimits"`
	}
	if text, err := fs.ReadFile(root, "etc/docker/daemon.json"); err == nil && json.Unmarshal(text, &engine) == nil && engine.Ulimits["memlock"] != nil {
		return nil
	}
	names, err := fs.Glob(root, "proc/[0-9]*/comm")
	if err != nil {
		return nil
	}
	for _, name := range names {
		if comm, err := fs.ReadFile(root, name); err != nil || strings.TrimSpace(string(comm)) != "containerd" {
			continue
		}
		limits, err := fs.ReadFile(root, strings.TrimSuffix(name, "comm")+"limits")
		if err != nil {
			continue
		}
		if bytes, limited := memlock(string(limits)); limited && bytes < enoughMemlock {
			return []finding{{warning, "rdma", fmt.Sprintf("containers may lock %s of memory, and RDMA programs lock their buffers", mib(bytes)),
				"docker run --ulimit memlock=-1"}}
		}
	}
	return nil
}

// memlock returns the soft limit of locked memory in bytes that a file /proc/PID/limits has; limited is false for none.
func memlock(limits string) (bytes int64, limited bool) {
	for line := range strings.Lines(limits) {
		if rest, ok := strings.CutPrefix(line, "Max locked memory"); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				return 0, false
			}
			bytes, err := strconv.ParseInt(fields[0], 10, 64)
			return bytes, err == nil // otherwise it is "unlimited"
		}
	}
	return 0, false
}
