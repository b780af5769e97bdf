package hw

import "fmt"

// CheckVFSupport refuses what the driver of a PF cannot set for any of its VFs, before it is tried on one. What only some drivers
// can set shows when it is tried.
func (h *Host) CheckVFSupport(pf PF, wish VFSpec) error {
	mute, err := h.sayNothing(pf)
	if err != nil {
		return err
	}
	for _, a := range vfAttrs {
		switch foreign := a.only != "" && a.only != pf.Type; {
		case wish.Policies[a.name] != Required:
		case foreign && pf.InfiniBand():
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: fmt.Errorf(
				"it is an infiniband device, whose vfs have none: %w", ErrUnsupported)}
		case foreign:
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: fmt.Errorf(
				"only vfs of an infiniband device have one: %w", ErrUnsupported)}
		case mute && a.name != "mac": // that is given to the VF's netdev
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: fmt.Errorf(
				"driver %s can set nothing for its vfs: %w", pf.Driver, ErrUnsupported)}
		}
	}
	return nil
}

// sayNothing tells whether a PF has VFs and its driver reports nothing of them: it has no operations for VFs (virtio).
func (h *Host) sayNothing(pf PF) (bool, error) {
	states, err := h.VFStates(pf)
	return err == nil && states == nil && h.sys.exists(pciDir(pf.PCI())+"/virtfn0"), err
}
