//go:build crashpoints

package main

import (
	"fmt"
	"net/netip"
	"path"

	"github.com/mellanox/passthrough/hw"
)

// crashKernel is a kernel with crash points around each method that changes a device.
type crashKernel struct {
	hw.Kernel
	points crashPoints
}

// SetLink has points around each field that is set.
func (c crashKernel) SetLink(index int, change hw.LinkChange) error {
	return change.Each(func(op string, one hw.LinkChange) error {
		return c.points.around(kindOf(op), fmt.Sprintf("link %d: %s", index, op), func() error { return c.Kernel.SetLink(index, one) })
	})
}

// SetVF has points around each field that is set.
func (c crashKernel) SetVF(pf, vf int, change hw.VFChange) error {
	return change.Each(func(op string, one hw.VFChange) error {
		return c.points.around("vf-"+kindOf(op), fmt.Sprintf("link %d vf %d: %s", pf, vf, op),
			func() error { return c.Kernel.SetVF(pf, vf, one) })
	})
}

// WriteAttr has points.
func (c crashKernel) WriteAttr(name, value string) error {
	return c.points.around("write-"+path.Base(name), name+" "+value, func() error { return c.Kernel.WriteAttr(name, value) })
}

// AddAddr has points.
func (c crashKernel) AddAddr(index int, a hw.Addr) error {
	return c.points.around("add-address", fmt.Sprintf("link %d: %s", index, a.CIDR), func() error { return c.Kernel.AddAddr(index, a) })
}

// AddRoute has points.
func (c crashKernel) AddRoute(index int, r hw.Route) error {
	return c.points.around("add-route", fmt.Sprintf("link %d: %s", index, r.Dst), func() error { return c.Kernel.AddRoute(index, r) })
}

// Solicit has points: an entry appears.
func (c crashKernel) Solicit(index int, a netip.Addr) error {
	return c.points.around("solicit", fmt.Sprintf("link %d: %s", index, a), func() error { return c.Kernel.Solicit(index, a) })
}

// ForgetNeighbour has points.
func (c crashKernel) ForgetNeighbour(index int, a netip.Addr) error {
	return c.points.around("forget-neighbour", fmt.Sprintf("link %d: %s", index, a),
		func() error { return c.Kernel.ForgetNeighbour(index, a) })
}

// MakeLink has points.
func (c crashKernel) MakeLink(l hw.NewLink) error {
	return c.points.around("make-link", l.Kind+" "+l.Name, func() error { return c.Kernel.MakeLink(l) })
}

// RemoveLink has points.
func (c crashKernel) RemoveLink(index int) error {
	return c.points.around("remove-link", fmt.Sprintf("link %d", index), func() error { return c.Kernel.RemoveLink(index) })
}

// SetTuning has points.
func (c crashKernel) SetTuning(index int, change hw.TuningChange) error {
	return change.Each(func(op string, one hw.TuningChange) error {
		return c.points.around("tune-"+kindOf(op), fmt.Sprintf("link %d: %s", index, op),
			func() error { return c.Kernel.SetTuning(index, one) })
	})
}

// SetAffinity has points.
func (c crashKernel) SetAffinity(irq int, cpus string) error {
	return c.points.around("set-affinity", fmt.Sprintf("irq %d: %s", irq, cpus), func() error { return c.Kernel.SetAffinity(irq, cpus) })
}
