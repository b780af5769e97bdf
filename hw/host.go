package hw

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mellanox/passthrough/hw/topology"
)

// Config is what a Host is made of.
type Config struct {
	Sys    fs.FS // sysfs, which no path may lead out of, as that of an [os.Root]
	Kernel Kernel
	Boot   string // identity of this boot; "" for the running kernel's
	// Booted is when the machine was booted; zero for the running kernel's time.
	Booted time.Time
}

// Host is the network devices of one machine, as seen from the network namespace of the host. Any number of calls may run at the
// same time; the kernel and the caller's ledger are the truth. Its methods are those of its parts.
type Host struct {
	*finder
	*links
	*pfs
	*tuner
	*vfs
	*binder
	*vfLifecycle
	*vfCount
	*netdevs
	*createdLinks
	*hostNetwork
	*hostUse

	boot string
}

// The parts of a Host, each with the parts that it needs.
type (
	// A finder finds the netdevs of the host.
	finder struct {
		sys    sysfs
		kernel Kernel
		booted time.Time
	}
	// links sets attributes and names of links.
	links struct{ *finder }
	// pfs finds PFs.
	pfs struct{ *finder }
	// A tuner sets queues, rings and offloads, and the CPUs of interrupts.
	tuner struct {
		*finder
		*links
	}
	// vfs finds VFs, and reads and sets what their PFs set for them.
	vfs struct {
		*finder
		*pfs
		attrs []VFAttr // in the order of setting
	}
	// A binder binds VFs to their drivers.
	binder struct {
		*finder
		*links
		unbinding *sync.Map // PCI addresses of VFs that the kernel is unbinding from a driver for programs, see unbindUser
	}
	// vfLifecycle takes a VF out of the host's use and back: snapshot, set, make ready, restore.
	vfLifecycle struct {
		*finder
		*links
		*tuner
		*vfs
		*binder
	}
	// vfCount creates and removes the VFs of a PF.
	vfCount struct {
		*finder
		*links
		*vfs
		*vfLifecycle
		*hostNetwork
	}
	// netdevs takes a netdev out of the host's use and back.
	netdevs struct {
		*finder
		*links
		*tuner
		*createdLinks
	}
	// createdLinks creates and removes virtual links: children, bonds and VLAN devices.
	createdLinks struct {
		*finder
		*links
	}
	// hostNetwork tells how the host itself uses its network.
	hostNetwork struct{ *finder }
)

// assemble makes the parts of a host.
func assemble(sys sysfs, kernel Kernel, attrs []VFAttr) *Host {
	h := &Host{finder: &finder{sys: sys, kernel: kernel}}
	h.links = &links{h.finder}
	h.pfs = &pfs{h.finder}
	h.tuner = &tuner{h.finder, h.links}
	h.vfs = &vfs{h.finder, h.pfs, attrs}
	h.binder = &binder{h.finder, h.links, &sync.Map{}}
	h.vfLifecycle = &vfLifecycle{h.finder, h.links, h.tuner, h.vfs, h.binder}
	h.hostNetwork = &hostNetwork{h.finder}
	h.vfCount = &vfCount{h.finder, h.links, h.vfs, h.vfLifecycle, h.hostNetwork}
	h.hostUse = &hostUse{h.finder, h.pfs, h.vfs, h.hostNetwork}
	h.createdLinks = &createdLinks{h.finder, h.links}
	h.netdevs = &netdevs{h.finder, h.links, h.tuner, h.createdLinks}
	return h
}

// Boot identifies the current boot of the machine: it changes with every boot and with nothing else.
func (h *Host) Boot() string { return h.boot }

// Topology tells how far PCI functions of the machine are from each other.
func (h *Host) Topology() topology.Topology { return topology.Topology{Sys: h.finder.sys.FS} }

// young is how long after its boot a machine may still be loading drivers.
const young = 10 * time.Minute

// RecentlyBooted returns true if the machine was booted a short time ago: a device without a driver may still get one.
func (h *Host) RecentlyBooted() bool { return h.sinceBoot() < young }

// sinceBoot returns how long ago the machine was booted. The host's clock being set does not change it.
func (h *finder) sinceBoot() time.Duration { return time.Since(h.booted) }

// uptime returns how long the kernel has been running.
func uptime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	seconds, _, _ := strings.Cut(string(text), " ")
	return time.ParseDuration(seconds + "s")
}

// Open returns the machine with the kernel c.Kernel, whose sysfs is c.Sys.
func Open(c Config) (*Host, error) {
	h := assemble(sysfs{c.Sys}, c.Kernel, vfAttrs)
	h.boot, h.finder.booted = c.Boot, c.Booted
	if h.boot == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("boot id: %w", err)
		}
		h.boot = strings.TrimSpace(string(id))
	}
	if h.finder.booted.IsZero() {
		age, err := uptime()
		if err != nil {
			return nil, fmt.Errorf("uptime: %w", err)
		}
		h.finder.booted = time.Now().Add(-age)
	}
	return h, nil
}

// Watch returns a channel that receives a value after network devices have changed, see [Kernel]. It does not say
// which.
func (h *Host) Watch(ctx context.Context) (<-chan struct{}, error) { return h.kernel.Watch(ctx) }
