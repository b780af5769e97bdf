package netdrv

import (
	"context"
	"errors"

	"github.com/mellanox/passthrough/hw"
)

// able refuses options that the PF's driver can do for none of its VFs. That shows only once there are VFs: those that were
// made for a network that cannot be go again. The caller holds the PF's lock.
func (d sriov) able(ctx context.Context, pf hw.PF, c *config) error {
	err := d.host.Able(pf, wish(c, pf, hw.VFState{}, ""))
	if err == nil {
		return nil
	}
	undo := context.WithoutCancel(ctx)
	if needed, listErr := d.sharingNeeded(undo, pf.PCI()); needed || listErr != nil {
		return errors.Join(err, listErr)
	}
	return errors.Join(err, d.unmakeVFs(undo, pf.PCI()))
}
