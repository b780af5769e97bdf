package mode

import (
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
)

// RDMA gives a container the RDMA device of its VF, if the kernel has each in one network namespace (exclusive mode). It moves the device into
// the container's namespace, from where it need not be moved back: when the VF comes home it is bound to its driver again, which ends the
// device, wherever it is, and makes another one in the host.
type RDMA struct {
	Devices *rdma.Host
	// Namespace opens the network namespace of a container, by what the engine calls its sandbox.
	Namespace func(sandbox string) (*os.File, error)
	Log       *zap.Logger
}

// check refuses a network whose option rdma a PF cannot fulfil.
func (r *RDMA) check(o *option.Network, pf hw.PF) error {
	if o.RDMA != option.RDMAYes && o.RDMA != option.RDMARequire {
		return nil
	}
	devices, err := r.Devices.Devices()
	if err != nil {
		return err
	}
	mode, err := r.Devices.Mode()
	switch {
	case err != nil:
		return err
	case len(rdma.Of(devices, pf.PCI(), pf.Index)) == 0:
		return fmt.Errorf("option rdma: %s has no rdma device; is its rdma driver loaded, such as mlx5_ib? passthroughctl nics shows rdma devices", pf)
	case o.RDMA == option.RDMARequire && mode != rdma.Exclusive:
		return fmt.Errorf("option rdma: this host shares rdma devices between all network namespaces, and require is for a device of its own; write " +
			"options ib_core netns_mode=0 to /etc/modprobe.d/ib_core.conf and restart the machine, or say rdma=yes")
	case mode == rdma.Exclusive && pf.InfiniBand():
		return fmt.Errorf("option rdma: %s is an infiniband pf: the netdev of a vf would not stay the same when its rdma device is moved", pf)
	}
	return nil
}

// record returns what the record of a VF says about its RDMA device; nil if that is to stay where it is.
func (r *RDMA) record(o *option.Container, pf hw.PF) (*alloc.RDMA, error) {
	if o.RDMA == option.RDMANo || o.RDMA == "" && pf.InfiniBand() {
		return nil, nil
	}
	if mode, err := r.Devices.Mode(); err != nil || o.RDMA == "" && mode != rdma.Exclusive {
		return nil, err
	}
	return &alloc.RDMA{Want: o.RDMA}, nil
}

// Choose writes into a VF's allocation which RDMA device goes with it. That is to be durable before Move. changed is true if it was not written
// there before.
func (r *RDMA) Choose(a *alloc.Allocation) (changed bool, err error) {
	if a.RDMA == nil {
		return false, nil
	}
	of, away, err := r.find(a)
	if err != nil || away { // it is moved already
		return false, err
	}
	if len(of) == 0 {
		return false, a.RDMA.IfRequired(fmt.Errorf("%s has no rdma device", a.Label))
	}
	mode, err := r.Devices.Mode()
	if err != nil {
		return false, err
	}
	if mode != rdma.Exclusive {
		if a.RDMA.Want == option.RDMARequire {
			err = errors.New("rdma=require: this host shares rdma devices between all network namespaces since its last start")
		}
		return false, err
	}
	changed, a.RDMA.Name = a.RDMA.Name != of[0].Name, of[0].Name
	return changed, nil
}

// Move moves the RDMA device of a VF into the container's namespace. A device that is only moved where that is possible stays, with a warning.
func (r *RDMA) Move(a *alloc.Allocation, sandbox string) error {
	if a.RDMA == nil || a.RDMA.Name == "" {
		return nil
	}
	of, _, err := r.find(a)
	if err != nil || len(of) == 0 {
		return err
	}
	if err = r.moveTo(of[0], sandbox); err == nil {
		return nil
	}
	err = fmt.Errorf("rdma device %s of %s cannot be moved into the container: %w", of[0].Name, a.Label, err)
	if err := a.RDMA.IfRequired(err); err != nil {
		return err
	}
	r.Log.Warn("rdma device stays in the host", append(a.Fields(), zap.NamedError("err", err))...)
	return nil
}

// moveTo moves a device into the network namespace of a sandbox.
func (r *RDMA) moveTo(d rdma.Device, sandbox string) error {
	if sandbox == "" {
		return errors.New("rdma devices are moved only for containers of a Docker Engine")
	}
	ns, err := r.Namespace(sandbox)
	if err != nil {
		return fmt.Errorf("%w; see docs/hpc.md", err)
	}
	return errors.Join(r.Devices.Move(d, ns), ns.Close())
}

// find returns the RDMA devices of a VF that are in the host; away is true if it has one elsewhere.
func (r *RDMA) find(a *alloc.Allocation) (of []rdma.Device, away bool, err error) {
	devices, err := r.Devices.Devices()
	if err != nil {
		return nil, false, err
	}
	if of = rdma.Of(devices, a.Device.PCI(), 0); len(of) > 0 {
		return of, false, nil
	}
	away, err = r.Devices.Away(a.Device.PCI())
	return nil, away, err
}

// home gives the RDMA device of a VF that was bound to its driver again the name that it had before, unless another has that. The error is an
// [*hw.UnrestoredError] if there is none: the VF itself is restored.
func (r *RDMA) home(a *alloc.Allocation) error {
	if a.RDMA == nil || a.RDMA.Name == "" || a.Snapshot.Unbound {
		return nil
	}
	if present, err := r.Devices.Present(a.Device.PCI()); err != nil || !present { // it is gone with its PF's other VFs
		return err
	}
	of, _, err := r.find(a)
	switch {
	case err == nil && len(of) == 0:
		err = errors.New("it is not in the host")
	case err == nil:
		err = r.Devices.Rename(of[0], a.RDMA.Name)
	}
	if err != nil {
		return &hw.UnrestoredError{Errs: []error{fmt.Errorf("rdma device %s of %s: %w", a.RDMA.Name, a.Label, err)}}
	}
	return nil
}
