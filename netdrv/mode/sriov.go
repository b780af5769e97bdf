package mode

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// sriov gives each container a VF of one of the network's PFs.
type sriov struct {
	host        *hw.Host
	finder      *vfpool.Finder
	pool        *vfpool.Pool
	allocations *alloc.Table
	rdma        *RDMA
	ports       representors
}

// Competes: containers take VFs from each other.
func (sriov) Competes(*Request) bool { return true }

// Claim selects a VF of any PF of the network.
func (m sriov) Claim(ctx context.Context, r *Request) (*alloc.Allocation, error) {
	keys := identityKeys(r)
	preferred, err := m.allocations.Preferred(ctx, r.Network.ID, keys)
	if err != nil {
		return nil, err
	}
	s, err := m.selector(ctx, r)
	if err != nil {
		return nil, err
	}
	s.Preferred = preferred
	chosen, err := s.Select()
	if err != nil {
		return nil, err
	}
	if err := m.rdma.check(r.Options, chosen.PF.PF); err != nil {
		return nil, err
	}
	a, err := m.allocate(ctx, r, &r.Options.Container, chosen, s.Held)
	if err != nil {
		return nil, err
	}
	a.IdentityKeys = keys
	a.RDMA, err = m.rdma.record(&r.Options.Container, chosen.PF.PF)
	return a, err
}

// selector reads what there is to select from.
func (m sriov) selector(ctx context.Context, r *Request) (vfpool.Selector, error) {
	// The allocations first: one may end at any time. A VF that is free by the ledger was so when its PF was looked at; the other way
	// round it could be without a netdev still, as while its driver is bound again, and count as one that another program has.
	held, err := m.allocations.List(ctx)
	if err != nil {
		return vfpool.Selector{}, err
	}
	devices, err := nearTo(m.host, &r.Options.Container)
	if err != nil {
		return vfpool.Selector{}, err
	}
	pfs, missing := m.pool.Inventory(ctx, r.Network.Devices, vfpool.Near{CPUs: r.Options.Cores.CPUs, PCI: devices})
	if len(pfs) == 0 {
		return vfpool.Selector{}, fmt.Errorf("network %s: %w", ledger.ShortID(r.Network.ID), errors.Join(missing...))
	}
	s := vfpool.Selector{PFs: pfs, Missing: missing, Network: r.Options.VFs, Want: r.Options.Container, Held: held, InUse: m.host.Taken}
	if r.Options.Driver != "" {
		s.InUse = func(vf hw.VF) (string, error) { return m.pool.ForPrograms().Taken(ctx, vf) }
	}
	if r.Options.Bridge != "" {
		if s.InUse, err = m.ports.free(pfs, s.InUse); err != nil {
			return s, err
		}
	}
	if !r.Options.KeepVLAN {
		return s, nil
	}
	vlans, err := m.vlanOwners(ctx, r.Network.ID, held)
	taken := s.InUse
	s.InUse = func(vf hw.VF) (string, error) {
		why, err := taken(vf)
		if err == nil && why == "" {
			why = vlans.ofVF(vf, pfs)
		}
		return why, err
	}
	return s, err
}

// allocate returns the allocation of a VF that was selected. It refuses a VLAN that another network has on the PF.
func (m sriov) allocate(ctx context.Context, r *Request, o *option.Container, chosen vfpool.Candidate, held alloc.Set) (
	*alloc.Allocation, error) {
	pf, vf := chosen.PF.PF, chosen.VF
	snap, err := m.host.SnapshotListedVF(pf, vf, chosen.PF.States)
	if err != nil {
		return nil, err
	}
	snap.Unbound = vf.Driver == "" && !chosen.PF.Made // one that the plugin has created stays bound, for the next container
	if had := snap.VF.VLAN; had.ID != 0 && o.VLAN == nil && !o.KeepVLAN {
		m.pool.Log.Warn("vf has a vlan that its network did not ask for; it is untagged for its container, see vlan=keep",
			zap.String("device", vf.String()), zap.Stringer("vlan", had))
	}
	port, err := m.ports.record(r.Options, o, pf, vf)
	if err != nil {
		return nil, err
	}
	of := option.Network{Bridge: r.Options.Bridge, Container: *o}
	spec := of.VFSpec(pf, chosen.WithStableGUIDs(*snap.VF), chosen.MAC())
	if err := m.host.CheckVFSupport(pf, chosen.PF.States, spec); err != nil {
		return nil, err
	}
	vlans, err := m.vlanOwners(ctx, r.Network.ID, held)
	if err == nil {
		vlan := spec.VLAN.ID
		if port != nil {
			vlan = port.VLAN
		}
		err = vlans.check(vlan, ledger.Device{ID: pf.ID, Name: pf.Name})
	}
	if err != nil {
		return nil, err
	}
	return &alloc.Allocation{Record: alloc.Record{
		Device: vf.ID(), Mode: option.ModeSRIOV, PF: pf.PCI(), VF: vf.Index, Label: vf.String(), Snapshot: snap,
		VFSpec: spec, LinkSpec: o.LinkSpec(snap.Link), Tuning: o.TuningSpec(), Representor: port,
	}}, nil
}

// identityKeys returns what a container is recognized by when it comes again, the surest first. Its address is one because
// neighbours remember for up to a minute which MAC an address had.
func identityKeys(r *Request) []alloc.IdentityKey {
	switch {
	case r.Options.Sticky != "":
		return []alloc.IdentityKey{{Text: r.Options.Sticky}}
	case r.Options.MAC != "":
		return []alloc.IdentityKey{{Text: string(r.Options.MAC), Implicit: true}} // the engine may have generated it
	}
	var keys []alloc.IdentityKey
	if r.Container != "" {
		keys = append(keys, alloc.IdentityKey{Text: "container " + r.Container, Implicit: true})
	}
	if r.Address != "" {
		keys = append(keys, alloc.IdentityKey{Text: "address " + r.Address, Implicit: true})
	}
	return keys
}

// Prepare sets the VF up through its PF, has it bound to its driver, and verifies that it works.
func (m sriov) Prepare(ctx context.Context, a *alloc.Allocation, save Save) (hw.Netdev, error) {
	pf, vf, err := m.host.VF(a.PF, a.VF, a.Device)
	if err != nil {
		return hw.Netdev{}, err
	}
	var dev hw.Netdev
	err = m.raising(ctx, pf, func() error { dev, err = m.host.SetVF(ctx, pf, vf, a.VFSpec); return err })
	if err != nil {
		return hw.Netdev{}, err
	}
	if a.Snapshot.Link == nil { // it had no netdev before; the one that it has now is restored to how it is now
		a.Snapshot.Complete(dev)
		if err := save(a); err != nil {
			return hw.Netdev{}, err
		}
	}
	if err := m.ports.open(ctx, pf, a); err != nil {
		return dev, err
	}
	dev, err = m.host.ReadyVF(ctx, pf, vf, a.VFSpec)
	if err != nil {
		return dev, err
	}
	if dev, err = m.host.SetLink(dev, a.LinkSpec, pf.MTU); err != nil {
		return dev, err
	}
	if err := tune(ctx, m.host, a, save); err != nil {
		return dev, err
	}
	return dev, m.report(pf, a)
}

// raising sets up a VF of a PF, which is brought up for that if it is down.
func (m sriov) raising(ctx context.Context, pf hw.PF, set func() error) error {
	if pf.Up {
		return set()
	}
	m.pool.Raising(pf.Netdev)
	if err := set(); err != nil {
		return err
	}
	return m.pool.Raised(ctx, pf.ID)
}

// report notes what the PF reports of a VF that is set up.
func (m sriov) report(pf hw.PF, a *alloc.Allocation) error {
	states, err := m.host.VFStates(pf)
	if s, known := states[a.VF]; known {
		a.Reported = &s
	}
	return err
}

// Release restores the VF, after everything that a container has left on it was removed. That is written down: a VF that cannot be
// restored is not unbound again for each attempt. A VF that is gone with its PF counts as restored.
func (m sriov) Release(ctx context.Context, a *alloc.Allocation) error {
	if !a.Clean {
		if err := m.host.CleanVF(a.PF, a.VF, a.Device); err != nil {
			return err
		}
		if err := m.allocations.MarkClean(ctx, a); err != nil {
			return err
		}
	}
	if err := m.ports.restore(a); err != nil {
		return err
	}
	if err := m.host.RestoreVF(ctx, a.PF, a.VF, a.Device, a.Snapshot); err != nil {
		return err
	}
	return m.rdma.home(a)
}
