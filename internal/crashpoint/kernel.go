package crashpoint

import (
	"fmt"
	"net/netip"
	"os"
	"path"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
)

// Kernel returns a kernel with a crash point before and after each change of a device.
func (p *Points) Kernel(k hw.Kernel) hw.Kernel { return kernel{k, p} }

// kernel is the result of [Points.Kernel]. It overrides the methods that change something; TestEveryChangeHasPoints finds one that is
// missing here.
type kernel struct {
	hw.Kernel
	points *Points
}

// RDMA returns a kernel with a crash point before and after each change of an RDMA device.
func (p *Points) RDMA(k rdma.Kernel) rdma.Kernel { return rdmaKernel{k, p} }

// rdmaKernel is the result of [Points.RDMA].
type rdmaKernel struct {
	rdma.Kernel
	points *Points
}

// Move implements [rdma.Kernel], with points.
func (k rdmaKernel) Move(index int, ns *os.File) error {
	return k.points.around("move-rdma", fmt.Sprintf("rdma device %d", index), func() error { return k.Kernel.Move(index, ns) })
}

// Rename implements [rdma.Kernel], with points.
func (k rdmaKernel) Rename(index int, name string) error {
	return k.points.around("rename-rdma", fmt.Sprintf("rdma device %d: %s", index, name), func() error { return k.Kernel.Rename(index, name) })
}

// SetLink implements [hw.Kernel], with points.
func (k kernel) SetLink(index int, a hw.LinkAttr, want hw.Link) error {
	return k.points.around("set-"+a.String(), fmt.Sprintf("link %d: %s", index, a.Op(want)),
		func() error { return k.Kernel.SetLink(index, a, want) })
}

// AddAltName implements [hw.Kernel], with points.
func (k kernel) AddAltName(index int, name string) error {
	return k.points.around("add-altname", fmt.Sprintf("link %d: add altname %s", index, name),
		func() error { return k.Kernel.AddAltName(index, name) })
}

// RemoveAltName implements [hw.Kernel], with points.
func (k kernel) RemoveAltName(index int, name string) error {
	return k.points.around("remove-altname", fmt.Sprintf("link %d: remove altname %s", index, name),
		func() error { return k.Kernel.RemoveAltName(index, name) })
}

// RemoveElsewhere implements [hw.Kernel], with points.
func (k kernel) RemoveElsewhere(l hw.ForeignLink) error {
	return k.points.around("remove-elsewhere", fmt.Sprintf("%+v", l), func() error { return k.Kernel.RemoveElsewhere(l) })
}

// SetVF implements [hw.Kernel], with points.
func (k kernel) SetVF(pf, vf int, a hw.VFAttr, want hw.VFState) error {
	return k.points.around("vf-set-"+a.String(), fmt.Sprintf("link %d vf %d: %s", pf, vf, a.Op(want)),
		func() error { return k.Kernel.SetVF(pf, vf, a, want) })
}

// SetPortVLANs implements [hw.Kernel], with points.
func (k kernel) SetPortVLANs(index int, want hw.PortVLANs) error {
	return k.points.around("set-port-vlans", fmt.Sprintf("link %d: %v", index, want), func() error { return k.Kernel.SetPortVLANs(index, want) })
}

// WriteAttr implements [hw.Kernel], with points.
func (k kernel) WriteAttr(name, value string) error {
	return k.points.around("write-"+path.Base(name), name+" "+value, func() error { return k.Kernel.WriteAttr(name, value) })
}

// AddAddr implements [hw.Kernel], with points.
func (k kernel) AddAddr(index int, a hw.Addr) error {
	return k.points.around("add-address", fmt.Sprintf("link %d: %s", index, a.CIDR), func() error { return k.Kernel.AddAddr(index, a) })
}

// RemoveRoute implements [hw.Kernel], with points.
func (k kernel) RemoveRoute(index int, r hw.Route) error {
	return k.points.around("remove-route", fmt.Sprintf("link %d: %s", index, r.Dst), func() error { return k.Kernel.RemoveRoute(index, r) })
}

// AddRoute implements [hw.Kernel], with points.
func (k kernel) AddRoute(index int, r hw.Route) error {
	return k.points.around("add-route", fmt.Sprintf("link %d: %s", index, r.Dst), func() error { return k.Kernel.AddRoute(index, r) })
}

// AddEntry implements [hw.Kernel], with points.
func (k kernel) AddEntry(index int, e hw.Entry) error {
	return k.points.around("add-entry", fmt.Sprintf("link %d: %s", index, e.Text), func() error { return k.Kernel.AddEntry(index, e) })
}

// SetSysctl implements [hw.Kernel], with points.
func (k kernel) SetSysctl(index int, name, value string) error {
	return k.points.around("set-sysctl", fmt.Sprintf("link %d: %s=%s", index, name, value),
		func() error { return k.Kernel.SetSysctl(index, name, value) })
}

// Solicit implements [hw.Kernel], with points: it makes an entry of the neighbour table.
func (k kernel) Solicit(index int, a netip.Addr) error {
	return k.points.around("solicit", fmt.Sprintf("link %d: %s", index, a), func() error { return k.Kernel.Solicit(index, a) })
}

// ForgetNeighbour implements [hw.Kernel], with points.
func (k kernel) ForgetNeighbour(index int, a netip.Addr) error {
	return k.points.around("forget-neighbour", fmt.Sprintf("link %d: %s", index, a),
		func() error { return k.Kernel.ForgetNeighbour(index, a) })
}

// CreateLink implements [hw.Kernel], with points.
func (k kernel) CreateLink(l hw.NewLink) error {
	return k.points.around("make-link", l.Kind+" "+l.Name, func() error { return k.Kernel.CreateLink(l) })
}

// RemoveLink implements [hw.Kernel], with points.
func (k kernel) RemoveLink(index int) error {
	return k.points.around("remove-link", fmt.Sprintf("link %d", index), func() error { return k.Kernel.RemoveLink(index) })
}

// SetTuning implements [hw.Kernel], with points.
func (k kernel) SetTuning(index int, a hw.TuningAttr, want hw.Tuning) error {
	return k.points.around("tune-set-"+a.String(), fmt.Sprintf("link %d: %s", index, a.Op(want)),
		func() error { return k.Kernel.SetTuning(index, a, want) })
}

// SetControl implements [hw.Kernel], with points.
func (k kernel) SetControl(index int, c hw.Control) error {
	return k.points.around("set-control", fmt.Sprintf("link %d: %s", index, c), func() error { return k.Kernel.SetControl(index, c) })
}

// SetAffinity implements [hw.Kernel], with points.
func (k kernel) SetAffinity(irq int, cpus string) error {
	return k.points.around("set-affinity", fmt.Sprintf("irq %d: %s", irq, cpus), func() error { return k.Kernel.SetAffinity(irq, cpus) })
}
