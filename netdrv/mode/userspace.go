package mode

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// userspace gives each container a VF that a program in it drives, as with DPDK: one that is set up through its PF and bound to vfio-pci. The
// engine gets no netdev, so it moves none; the container's addresses are for the program to use.
type userspace struct {
	vfs  sriov
	host *hw.Host
}

// Check is that of sriov. It also refuses a driver that is not loaded, a machine without an IOMMU, and PFs whose VFs share groups.
func (m userspace) Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error) {
	p, err := m.vfs.Check(ctx, o, others)
	if err != nil {
		return nil, err
	}
	for _, pf := range p.pfs {
		if pf.InfiniBand() {
			return nil, fmt.Errorf("option driver: %s is an infiniband pf, whose vfs need their kernel driver; leave driver out", pf)
		}
		if err := m.host.CheckUserDriver(pf, o.Driver, o.Force); err != nil {
			return nil, fmt.Errorf("option driver: %w", err)
		}
		if err := m.checkIsolated(o, pf); err != nil {
			return nil, fmt.Errorf("option driver: %w", err)
		}
	}
	if o.CDI == "" {
		p.step("each container's vf is bound to %s, and to its own driver again afterwards; the container gets no netdev", o.Driver)
	} else {
		p.step("the vfs are bound to %s as long as there is the network, and to their own driver afterwards; a container gets no netdev", o.Driver)
	}
	return p, nil
}

// checkIsolated refuses a PF none of whose VFs can be given to a program alone. One that has no VFs yet is not refused.
func (m userspace) checkIsolated(o *option.Network, pf hw.PF) error {
	vfs, err := m.host.VFs(pf)
	if err != nil {
		return err
	}
	var first error
	for _, vf := range vfs {
		if len(o.VFs) > 0 && !slices.Contains(o.VFs, vf.Index) {
			continue
		}
		why, err := m.host.NotIsolated(vf)
		if why == "" || err != nil {
			return err
		}
		first = cmp.Or(first, fmt.Errorf("%s %s", vf, why))
	}
	return first
}

// Make is that of sriov.
func (m userspace) Make(ctx context.Context, o *option.Network, p *Plan) ([]ledger.Device, error) {
	return m.vfs.Make(ctx, o, p)
}

// Competes: containers take VFs from each other.
func (m userspace) Competes(r *Request) bool { return m.vfs.Competes(r) }

// Claim selects a VF of any PF of the network. The machine may have changed since the network was created: it is checked again.
func (m userspace) Claim(ctx context.Context, r *Request) (*alloc.Allocation, error) {
	a, err := m.vfs.Claim(ctx, r)
	if err != nil {
		return nil, err
	}
	pf, err := m.host.PF(a.PF)
	if err == nil {
		err = m.host.CheckUserDriver(pf, r.Options.Driver, r.Options.Force)
	}
	if err != nil {
		return nil, err
	}
	kept, err := m.vfs.pool.ForPrograms().KeepsFor(ctx, a.Device)
	a.Mode, a.UserDriver, a.Kept, a.RDMA = userspaceName, r.Options.Driver, kept == r.Options.Driver, nil
	return a, err
}

// Prepare sets the VF up through its PF, and has it bound to its driver. The result is not in the host; it has what the engine is told.
func (m userspace) Prepare(ctx context.Context, a *alloc.Allocation, _ Save) (dev hw.Netdev, _ error) {
	pf, vf, err := m.host.VF(a.PF, a.VF, a.Device)
	if err != nil {
		return dev, err
	}
	err = m.vfs.raising(ctx, pf, func() error { return m.host.SetUserVF(ctx, pf, vf, a.VFSpec, a.UserDriver) })
	if err == nil {
		err = m.vfs.ports.open(ctx, pf, a)
	}
	if err != nil {
		return dev, err
	}
	err = m.vfs.report(pf, a)
	dev.ID, dev.Type, dev.MAC = a.Device, pf.Type, a.VFSpec.MAC
	if a.Reported != nil {
		dev.MAC = a.Reported.MAC
	}
	return dev, err
}

// Release has the VF unbound, which is written down: one that an administrator binds to the same driver after that is his. Then it is restored as
// any other. One that is kept for programs stays bound. The error matches hw.ErrAway while a program has it open.
func (m userspace) Release(ctx context.Context, a *alloc.Allocation) error {
	if a.Kept {
		if err := m.host.RestoreUserVF(ctx, a.PF, a.VF, a.Device, a.Snapshot); err != nil {
			return err
		}
		return m.vfs.ports.restore(a)
	}
	if a.UserDriver != "" {
		if err := m.host.UnbindUserVF(ctx, a.PF, a.VF, a.Device, a.UserDriver, a.Snapshot); err != nil {
			return err
		}
		if err := m.vfs.allocations.MarkUnbound(ctx, a); err != nil {
			return err
		}
	}
	if err := m.vfs.ports.restore(a); err != nil {
		return err
	}
	return m.host.RestoreVF(ctx, a.PF, a.VF, a.Device, a.Snapshot)
}
