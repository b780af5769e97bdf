//go:build crashpoints

package main

import (
	"context"
	"fmt"
	"net/netip"
	"path"

	"github.com/mellanox/passthrough/hw"
)

// crashKernel is a kernel with crash points. It names every method of [hw.Machine] instead of embedding it: one that is
// new does not compile here until somebody has said whether it changes a device.
type crashKernel struct {
	m      hw.Machine
	points crashPoints
}

// SetLink has points around each field that is set.
func (c crashKernel) SetLink(index int, change hw.LinkChange) error {
	return change.Each(func(op string, one hw.LinkChange) error {
		return c.points.around(kindOf(op), fmt.Sprintf("link %d: %s", index, op), func() error { return c.m.SetLink(index, one) })
	})
}

// SetVF has points around each field that is set.
func (c crashKernel) SetVF(pf, vf int, change hw.VFChange) error {
	return change.Each(func(op string, one hw.VFChange) error {
		return c.points.around("vf-"+kindOf(op), fmt.Sprintf("link %d vf %d: %s", pf, vf, op),
			func() error { return c.m.SetVF(pf, vf, one) })
	})
}

// WriteAttr has points.
func (c crashKernel) WriteAttr(name, value string) error {
	return c.points.around("write-"+path.Base(name), name+" "+value, func() error { return c.m.WriteAttr(name, value) })
}

// AddAddr has points.
func (c crashKernel) AddAddr(index int, a hw.Addr) error {
	return c.points.around("add-address", fmt.Sprintf("link %d: %s", index, a.CIDR), func() error { return c.m.AddAddr(index, a) })
}

// AddRoute has points.
func (c crashKernel) AddRoute(index int, r hw.Route) error {
	return c.points.around("add-route", fmt.Sprintf("link %d: %s", index, r.Dst), func() error { return c.m.AddRoute(index, r) })
}

// Solicit has points: an entry appears.
func (c crashKernel) Solicit(index int, a netip.Addr) error {
	return c.points.around("solicit", fmt.Sprintf("link %d: %s", index, a), func() error { return c.m.Solicit(index, a) })
}

// ForgetNeighbour has points.
func (c crashKernel) ForgetNeighbour(index int, a netip.Addr) error {
	return c.points.around("forget-neighbour", fmt.Sprintf("link %d: %s", index, a),
		func() error { return c.m.ForgetNeighbour(index, a) })
}

// MakeLink has points.
func (c crashKernel) MakeLink(l hw.NewLink) error {
	return c.points.around("make-link", l.Kind+" "+l.Name, func() error { return c.m.MakeLink(l) })
}

// RemoveLink has points.
func (c crashKernel) RemoveLink(index int) error {
	return c.points.around("remove-link", fmt.Sprintf("link %d", index), func() error { return c.m.RemoveLink(index) })
}

// SetTuning has points.
func (c crashKernel) SetTuning(index int, change hw.TuningChange) error {
	return change.Each(func(op string, one hw.TuningChange) error {
		return c.points.around("tune-"+kindOf(op), fmt.Sprintf("link %d: %s", index, op),
			func() error { return c.m.SetTuning(index, one) })
	})
}

// SetAffinity has points.
func (c crashKernel) SetAffinity(irq int, cpus string) error {
	return c.points.around("set-affinity", fmt.Sprintf("irq %d: %s", irq, cpus), func() error { return c.m.SetAffinity(irq, cpus) })
}

// Those below change nothing.

// Links lists links.
func (c crashKernel) Links() ([]hw.Link, error) { return c.m.Links() }

// LinkAt reads a link.
func (c crashKernel) LinkAt(index int) (hw.Link, error) { return c.m.LinkAt(index) }

// LinkNamed reads a link.
func (c crashKernel) LinkNamed(name string) (hw.Link, error) { return c.m.LinkNamed(name) }

// VFs lists VFs.
func (c crashKernel) VFs(pf int) (map[int]hw.VFState, error) { return c.m.VFs(pf) }

// Switchdev tells the mode of an eswitch.
func (c crashKernel) Switchdev(pci string) (bool, error) { return c.m.Switchdev(pci) }

// Addrs lists addresses.
func (c crashKernel) Addrs(index int) ([]hw.Addr, error) { return c.m.Addrs(index) }

// Routes lists routes.
func (c crashKernel) Routes(index int) ([]hw.Route, error) { return c.m.Routes(index) }

// Sessions lists ssh sessions.
func (c crashKernel) Sessions() ([]netip.Addr, error) { return c.m.Sessions() }

// Watch tells of changes.
func (c crashKernel) Watch(ctx context.Context) (<-chan struct{}, error) { return c.m.Watch(ctx) }

// Neighbour looks for an entry.
func (c crashKernel) Neighbour(index int, a netip.Addr) (hw.MAC, bool, error) {
	return c.m.Neighbour(index, a)
}

// Tuning reads how a link is tuned.
func (c crashKernel) Tuning(index int) (hw.Tuning, error) { return c.m.Tuning(index) }

// Affinity reads where an interrupt goes.
func (c crashKernel) Affinity(irq int) (string, error) { return c.m.Affinity(irq) }
