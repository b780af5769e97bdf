package mode

import (
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
)

// representors set up the ports of a NIC's switch that lead to VFs, if its eswitch is in switchdev mode. A VF has a link while its port is up.
type representors struct{ host *hw.Host }

// check refuses what a PF in switchdev mode does not do for its VFs. on is true if the PF is in that mode.
func (r representors) check(o *option.Container, pf hw.PF) (on bool, _ error) {
	on, err := r.host.Switchdev(pf)
	if err != nil || !on {
		return false, err
	}
	if o.VLAN != nil && *o.VLAN > 0 {
		return true, fmt.Errorf("option vlan: %s is in switchdev mode, in which the nic tags nothing for its vfs: that is done where the vf's representor is a port; "+
			"leave vlan out", pf)
	}
	return true, nil
}

// record returns what the record of a VF says of its representor, before that is touched; nil on a PF that is not in switchdev mode.
func (r representors) record(o *option.Container, pf hw.PF, vf hw.VF) (*alloc.Representor, error) {
	on, err := r.check(o, pf)
	if err != nil || !on {
		return nil, err
	}
	n, err := r.find(pf, vf.Index)
	if err != nil {
		return nil, err
	}
	return &alloc.Representor{Name: n.Name, Up: n.Up}, nil
}

// find returns the representor of a VF. The error matches hw.ErrNotFound if it is not in the host.
func (r representors) find(pf hw.PF, vf int) (hw.Netdev, error) {
	all, err := r.host.Representors(pf)
	if err != nil {
		return hw.Netdev{}, err
	}
	n, ok := all[vf]
	if !ok {
		return n, &hw.Error{Dev: fmt.Sprintf("vf %d of %s", vf, pf), Err: hw.Because(hw.ErrNotFound, "its representor is not in the host")}
	}
	return n, nil
}

// open sets the representor of a VF up.
func (r representors) open(ctx context.Context, pf hw.PF, a *alloc.Allocation) error {
	if a.Representor == nil {
		return nil
	}
	n, err := r.find(pf, a.VF)
	if err != nil || n.Up {
		return err
	}
	return r.host.OpenPort(ctx, n)
}

// restore makes the representor of a VF what it was before. One that is gone, with its VF or because the eswitch has another mode, counts as
// restored.
func (r representors) restore(a *alloc.Allocation) error {
	if a.Representor == nil {
		return nil
	}
	pf, err := r.host.PF(a.PF)
	if err == nil {
		var n hw.Netdev
		if n, err = r.find(pf, a.VF); err == nil && n.Up && !a.Representor.Up {
			err = r.host.ClosePort(n)
		}
	}
	if errors.Is(err, hw.ErrNotFound) {
		return nil
	}
	return err
}
