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

// SetLink has points.
func (c crashKernel) SetLink(index int, a hw.LinkAttr, want hw.Link) error {
	return c.points.around("set-"+a.String(), fmt.Sprintf("link %d: %s", index, a.Op(want)),
		func() error { return c.Kernel.SetLink(index, a, want) })
}

// AddAltName has points.
func (c crashKernel) AddAltName(index int, name string) error {
	return c.points.around("add-altname", fmt.Sprintf("link %d: add altname %s", index, name),
		func() error { return c.Kernel.AddAltName(index, name) })
}

// RemoveAltName has points.
func (c crashKernel) RemoveAltName(index int, name string) error {
	return c.points.around("remove-altname", fmt.Sprintf("link %d: remove altname %s", index, name),
		func() error { return c.Kernel.RemoveAltName(index, name) })
}

// SetVF has points.
func (c crashKernel) SetVF(pf, vf int, a hw.VFAttr, want hw.VFState) error {
	return c.points.around("vf-set-"+a.String(), fmt.Sprintf("link %d vf %d: %s", pf, vf, a.Op(want)),
		func() error { return c.Kernel.SetVF(pf, vf, a, want) })
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
func (c crashKernel) SetTuning(index int, a hw.TuningAttr, want hw.Tuning) error {
	return c.points.around("tune-set-"+a.String(), fmt.Sprintf("link %d: %s", index, a.Op(want)),
		func() error { return c.Kernel.SetTuning(index, a, want) })
}

// SetAffinity has points.
func (c crashKernel) SetAffinity(irq int, cpus string) error {
	return c.points.around("set-affinity", fmt.Sprintf("irq %d: %s", irq, cpus), func() error { return c.Kernel.SetAffinity(irq, cpus) })
}
