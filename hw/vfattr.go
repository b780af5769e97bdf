package hw

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// vfAttrs is what a PF sets for its VFs, in the order of setting. To add one: a field in VFState and VFChange and a row.
//
// The MAC comes first because i40e, ice and igb reset the VF for it, which must not undo what follows; the VLAN next,
// for which i40e resets as well; then what only the PF acts on; spoofchk before trust, because a trusted VF may change its
// MAC at once. Putting back goes in reverse: trust is taken away before the MAC it protected is put back.
var vfAttrs = []attr[VFState, VFChange]{
	row("node_guid", func(s *VFState) *GUID { return &s.NodeGUID }, func(c *VFChange) **GUID { return &c.NodeGUID }).
		onlyOf("infiniband"),
	row("port_guid", func(s *VFState) *GUID { return &s.PortGUID }, func(c *VFChange) **GUID { return &c.PortGUID }).
		onlyOf("infiniband"),
	row("mac", func(s *VFState) *MAC { return &s.MAC }, func(c *VFChange) **MAC { return &c.MAC }).onlyOf("ether"),
	row("vlan", func(s *VFState) *VLAN { return &s.VLAN }, func(c *VFChange) **VLAN { return &c.VLAN }).onlyOf("ether"),
	row("rate", func(s *VFState) *Rate { return &s.Rate }, func(c *VFChange) **Rate { return &c.Rate }).onlyOf("ether"),
	row("link_state", func(s *VFState) *LinkMode { return &s.LinkMode }, func(c *VFChange) **LinkMode { return &c.LinkMode }),
	row("spoofchk", func(s *VFState) *bool { return &s.Spoofchk }, func(c *VFChange) **bool { return &c.Spoofchk }).onlyOf("ether"),
	row("trust", func(s *VFState) *bool { return &s.Trust }, func(c *VFChange) **bool { return &c.Trust }).onlyOf("ether"),
}

// VFSpec is how a VF is to be set up: the values, and how much each attribute matters. An attribute that Policies does not
// name is left as it is.
type VFSpec struct {
	VFState
	Policies map[string]Policy `json:"Need"` // by the names of vfAttrs
}

// vfMover drives what the PF has set for a VF.
func (h *Host) vfMover(ctx context.Context, pf PF, vf VF) mover[VFState, VFChange] {
	return mover[VFState, VFChange]{
		dev:   vf.String(),
		with:  pf.Driver,
		attrs: vfAttrs,
		read:  func() (VFState, error) { return h.awaitState(ctx, pf, vf) },
		set: func(c VFChange) error {
			return h.insist(ctx, func() error { return h.setVF(pf, vf, c) })
		},
		policy: always,
	}
}

// vfState reads what the PF has set for a VF. A PF that never reports anything gives the zero state: nothing set. Where it has
// nothing to report just now, see Resetting, the error matches ErrBusy.
func (h *Host) vfState(pf PF, vf VF) (VFState, error) {
	all, err := h.kernel.VFs(pf.Index)
	if err != nil {
		return VFState{}, err
	}
	if pf.Resetting(vf, all) {
		return VFState{}, fmt.Errorf("driver %s does not say what is set for it; it may be resetting it: %w", pf.Driver, ErrBusy)
	}
	s := all[vf.Index]
	if dir := h.vfTree(pf, vf); dir != "" {
		return s, h.readTree(dir, &s)
	}
	return s, nil
}

// Resetting tells whether a PF's driver has nothing to say of a VF just now; states is what it says of them, see VFStates. An
// InfiniBand PF has nothing to say through rtnetlink at all where its driver does not help IPoIB with it
// (drivers/infiniband/core/verbs.c, ib_get_vf_config, Linux 6.12).
func (p PF) Resetting(vf VF, states map[int]VFState) bool {
	_, known := states[vf.Index]
	return states != nil && !known && !p.InfiniBand()
}

// awaitState is vfState for a VF that may be in the middle of being reset: ice and i40e reset it for each MAC, and all with their PF.
func (h *Host) awaitState(ctx context.Context, pf PF, vf VF) (s VFState, err error) {
	err = h.insist(ctx, func() (err error) {
		s, err = h.vfState(pf, vf)
		return err
	})
	return s, err
}

// insist does again, for a while, what a driver cannot do just now: i40e answers EAGAIN while a VF is being reset, or another is at
// work (i40e_virtchnl_pf.c, Linux 6.12).
func (h *Host) insist(ctx context.Context, do func() error) error {
	var last error
	err := wait(ctx, vfResetBound, func() (bool, error) {
		if last = do(); errors.Is(last, ErrBusy) {
			return false, nil
		}
		return true, last
	})
	if timedOut(err) {
		return last
	}
	return err
}

// VFStates reads what a PF has set for its VFs, by their index. One that is missing is one that its driver has nothing to say of
// just now, as while it resets it; nil is for a PF whose driver never tells.
func (h *Host) VFStates(pf PF) (map[int]VFState, error) {
	all, err := h.kernel.VFs(pf.Index)
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "read vfs", Err: err}
	}
	return all, nil
}

// reversed is attrs in the order of putting back.
func reversed[S, C any](attrs []attr[S, C]) []attr[S, C] {
	back := slices.Clone(attrs)
	slices.Reverse(back)
	return back
}
