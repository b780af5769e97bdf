package hw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Snapshot is the state of a device before it was attached: all that its release has to restore. It is plain data,
// which the caller keeps in its ledger.
type Snapshot struct {
	Link     *LinkState // nil if the device had no netdev: a VF that was not bound
	VF       *VFState   // what the PF had set; nil for a device that is not a VF
	Override string     // driver_override of a VF, which Bind changes temporarily; "" for none
	Addrs    []Addr     // of a netdev that is not a VF: what releases before TakenSec restore
	Routes   []Route    // likewise
	Entries  []Entry    `json:",omitempty"` // likewise: all that is configured on it
	// Sysctls has those of a netdev that is not a VF that were not as a new link's, by their names in [Kernel].Sysctls.
	Sysctls map[string]string `json:",omitempty"`
	Unbound bool              `json:",omitempty"` // a VF that was bound to no driver, and is to be so again
	XDP     XDP               `json:",omitzero"`  // of a netdev that is not a VF: the host's own programs
	Shared  bool              `json:",omitempty"` // likewise: it had children, which are not its container's
	// Whole is how a netdev that is not a VF was tuned: nil in a record of an older release.
	Whole *TuningSnapshot `json:",omitempty"`
	// Controls are those of a netdev that is not a VF: nil in a record of an older release.
	Controls []Control       `json:",omitzero"`
	TakenSec int64           `json:",omitempty"` // when it was taken, in seconds since boot; 0 in a record that has no Entries
	AltNames []string        `json:",omitzero"`  // alternative names of its netdev; nil if they are not known, as without a netdev
	Tuned    *TuningSnapshot `json:",omitempty"` // nil if the spec changed no tuning
}

// Describe says what is put back, as an operator reads it: what the PF had set, the netdev, and how much was configured on it.
func (s Snapshot) Describe() string {
	var parts []string
	if s.VF != nil {
		parts = append(parts, s.VF.Describe())
	}
	if l := s.Link; l != nil {
		upDown := map[bool]string{true: "up", false: "down"}
		parts = append(parts, fmt.Sprintf("netdev %s %s, mtu %d, mac %s", l.Name, upDown[l.Up], l.MTU, cmp.Or(string(l.MAC), "none")))
	}
	for _, of := range []struct {
		n    int
		what string
	}{{len(s.Addrs), "addresses"}, {len(s.Routes), "routes"}} {
		if of.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", of.n, of.what))
		}
	}
	if s.Unbound {
		parts = append(parts, "no driver")
	}
	return strings.Join(parts, "; ")
}

// SnapshotVF reads the present state of a VF.
func (h *vfLifecycle) SnapshotVF(pf PF, vf VF) (Snapshot, error) {
	states, err := h.VFStates(pf)
	if err != nil {
		return Snapshot{}, err
	}
	return h.SnapshotListedVF(pf, vf, states)
}

// SnapshotListedVF is SnapshotVF with what a PF has set for its VFs, which was read just now; states is from VFStates.
func (h *vfLifecycle) SnapshotListedVF(pf PF, vf VF, states map[int]VFState) (Snapshot, error) {
	s, err := h.listedState(pf, vf, states)
	if err != nil {
		return Snapshot{}, &Error{Dev: vf.String(), Op: "read", Err: err}
	}
	snap := Snapshot{VF: &s, Override: vf.Override}
	if vf.Netdev.Index != 0 {
		l := linkState(vf.Netdev.Link, nil)
		snap.Link, snap.AltNames = &l, vf.Netdev.altNames()
	}
	return snap, nil
}

// Complete adds to the snapshot of a VF that was not bound the netdev that it has now. Before, the netdev would have
// been down, with the MAC that the PF had set for the VF.
func (s *Snapshot) Complete(n Netdev) {
	l := linkState(n.Link, nil)
	l.Up = false
	if own := s.VF.netdevMAC(l.MAC); own != "" { // not that of the spec, which its driver has just read
		l.MAC = own
	}
	s.Link, s.AltNames = &l, n.altNames()
}

// SetVF applies a spec to a VF through its PF, verifies it, and binds the VF to its driver. It returns the netdev,
// which completes the snapshot of a VF that was not bound. A PF that is down is brought up, and stays up: without it no
// VF has carrier.
func (h *vfLifecycle) SetVF(ctx context.Context, pf PF, vf VF, spec VFSpec) (Netdev, error) {
	err := h.setThroughPF(ctx, pf, vf, spec.VFState, func(a VFAttr, noOps bool) Policy {
		if a == VFMAC && noOps {
			return Ignore // ReadyVF gives it to the netdev
		}
		return spec.Policies[a]
	})
	if err != nil {
		return Netdev{}, err
	}
	n, err := h.Bind(ctx, pf, vf)
	return n, h.blame(pf, vf, err)
}

// setThroughPF gives a VF a state through its PF, which it brings up. noOps is true for a PF whose driver has no operations for VFs.
func (h *vfLifecycle) setThroughPF(ctx context.Context, pf PF, vf VF, want VFState, policy func(a VFAttr, noOps bool) Policy) error {
	if !pf.Up {
		if err := h.raisePF(ctx, pf); err != nil {
			return err
		}
	}
	states, err := h.VFStates(pf)
	if err != nil {
		return err
	}
	noOps := h.noVFOps(pf, states)
	p := h.vfApplier(ctx, pf, vf)
	p.undo, p.policy = true, func(a VFAttr) Policy { return policy(a, noOps) }
	if now, err := h.listedState(pf, vf, states); err == nil { // otherwise it is waited for, as while the VF is reset
		p.now = &now
	}
	return p.apply(want)
}

// SetUserVF applies a spec to a VF through its PF, as SetVF does, and binds it to a driver for programs, such as vfio-pci, unless it is bound to
// that. It has no netdev then. UnbindUserVF is to come before RestoreVF.
func (h *vfLifecycle) SetUserVF(ctx context.Context, pf PF, vf VF, spec VFSpec, driver string) error {
	err := h.setThroughPF(ctx, pf, vf, spec.VFState, func(a VFAttr, _ bool) Policy { return spec.Policies[a] })
	if err != nil {
		return err
	}
	return h.BindUserVF(ctx, vf, driver)
}

// RestoreUserVF restores what the PF had set for a VF that stays bound to a driver for programs, which resets it for the next one that opens
// it (drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_enable, Linux 6.12). The error matches ErrAway while a program has it open. A VF that is
// gone counts as restored (nil).
func (h *vfLifecycle) RestoreUserVF(ctx context.Context, pfRef string, index int, id ID, was Snapshot) error {
	pf, vf, err := h.VF(pfRef, index, id)
	if errors.Is(err, ErrNotFound) || was.VF == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if open, err := h.OpenByProgram(vf); err != nil || open && isUserDriver(vf.Driver) {
		return cmp.Or(err, error(&Error{Dev: vf.String(), Err: Because(ErrAway, "a program has it open")}))
	}
	return h.RestoreVFState(ctx, pf, vf, *was.VF)
}

// UnbindUserVF unbinds a VF from the driver that SetUserVF has bound it to, and restores its driver_override. The error matches ErrAway while a
// program has the VF open. A VF that is gone counts as unbound (nil), and one with another driver is left alone.
func (h *vfLifecycle) UnbindUserVF(ctx context.Context, pfRef string, index int, id ID, driver string, was Snapshot) error {
	_, vf, err := h.VF(pfRef, index, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil && vf.Driver == driver {
		err = h.unbindUser(ctx, vf)
	}
	if err == nil && vf.Override == driver {
		err = h.restoreOverride(vf, was.Override)
	}
	return err
}

// ReadyVF makes a VF usable after SetVF: its netdev gets the spec's MAC, must have carrier while it is up, and is down
// again. A VF without carrier on a PF that has carrier is rebound once; then the error matches ErrDeviceFault. A VF that
// its driver cannot set up just now is waited for; then the error matches ErrBusy. The MAC of the result is the
// netdev's: on a PF without VF operations a BestEffort MAC may not have been set.
func (h *vfLifecycle) ReadyVF(ctx context.Context, pf PF, vf VF, spec VFSpec) (Netdev, error) {
	n, err := h.Find(ID(vf.PCI))
	if err != nil {
		return Netdev{}, err
	}
	vf.Driver = n.Driver
	if pf.InfiniBand() {
		return h.readyPort(ctx, pf, vf, n, spec)
	}
	mac := spec.MAC
	if n.MAC != mac && mac != "" {
		switch m, err := h.setMAC(ctx, pf, vf, n, mac); {
		case err == nil:
			n = m
		case spec.Policies[VFMAC] == Required || m.Index == 0:
			return Netdev{}, err
		default:
			n, mac = m, m.MAC
		}
	}
	err = h.testVF(ctx, pf, vf, n, spec.LinkMode, vfCarrierBound)
	if !errors.Is(err, ErrDeviceFault) {
		return n, err
	}
	if n, err = h.Rebind(ctx, pf, vf); err != nil {
		return Netdev{}, h.blame(pf, vf, err)
	}
	if n.MAC != mac && mac != "" { // the PF has set none, so the driver has made up another
		if n, err = h.restoreMAC(vf, n, mac); err != nil {
			return Netdev{}, err
		}
	}
	if err := h.testVF(ctx, pf, vf, n, spec.LinkMode, vfReboundBound); err != nil {
		return Netdev{}, fmt.Errorf("%w, also after it was unbound and bound; is it seen in the kernel log (dmesg)?", err)
	}
	return n, nil
}

// setMAC gives a VF's netdev the MAC that the PF has set for it. An untrusted VF may not change its MAC (igbvf:
// EADDRNOTAVAIL), not even to that one: then its driver has to read it again.
func (h *vfLifecycle) setMAC(ctx context.Context, pf PF, vf VF, n Netdev, mac MAC) (Netdev, error) {
	err := h.kernel.SetLink(n.Index, LinkMAC, Link{MAC: mac})
	if err == nil {
		if n, err = h.Find(n.ID); err == nil && n.MAC == mac {
			return n, nil
		}
	}
	if n, err = h.Rebind(ctx, pf, vf); err != nil || n.MAC == mac {
		return n, err
	}
	return n, macMismatch(vf, n, mac)
}

// restoreMAC gives a VF's new netdev the MAC that the old one had.
func (h *vfLifecycle) restoreMAC(vf VF, n Netdev, mac MAC) (Netdev, error) {
	if err := h.kernel.SetLink(n.Index, LinkMAC, Link{MAC: mac}); err != nil {
		return n, &Error{Dev: vf.String(), Op: "set mac " + string(mac), Err: err}
	}
	n, err := h.Find(n.ID)
	if err == nil && n.MAC != mac {
		err = macMismatch(vf, n, mac)
	}
	return n, err
}

func macMismatch(vf VF, n Netdev, mac MAC) error {
	return &Error{Dev: vf.String(), Op: "set mac " + string(mac), Err: Because(ErrInvalid, "the device says %s", n.MAC)}
}

// testVF sets a VF up until it has carrier, unless its PF has disabled its link, and down again. A VF is faulty, ErrDeviceFault, if
// it is up without carrier for bound while its PF has carrier. A VF whose PF has none cannot be tested, which is no error.
func (h *vfLifecycle) testVF(ctx context.Context, pf PF, vf VF, n Netdev, mode LinkMode, bound time.Duration) error {
	return h.whileQuiet(n, func() error { return h.tryCarrier(ctx, pf, vf, n, mode, bound) })
}

func (h *vfLifecycle) tryCarrier(ctx context.Context, pf PF, vf VF, n Netdev, mode LinkMode, bound time.Duration) (err error) {
	if err := h.openVF(ctx, pf, vf, n); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.setUp(n, false)) }()
	if mode == LinkDisable {
		return nil
	}
	err = h.awaitVFCarrier(ctx, pf, n, bound)
	if err != nil {
		err = &Error{Dev: vf.String(), Op: "wait for carrier", Err: err}
	}
	return err
}

// openVF sets a VF up. EBUSY is never the VF's fault.
func (h *vfLifecycle) openVF(ctx context.Context, pf PF, vf VF, n Netdev) error {
	err := h.open(ctx, n)
	if err == nil {
		return nil
	}
	err = &Error{Dev: vf.String(), Op: "wait until it can be set up", Err: err}
	if !errors.Is(err, ErrBusy) && !errors.Is(err, ErrDeviceFault) && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", err, ErrDeviceFault)
	}
	return h.blame(pf, vf, err)
}

// awaitVFCarrier waits until a VF that is up has carrier. Its time counts only while its PF has carrier: a PF that is reset, or that
// has just created VFs, has none for a moment, and its VFs may have theirs seconds later.
func (h *vfLifecycle) awaitVFCarrier(ctx context.Context, pf PF, n Netdev, bound time.Duration) error {
	had, changed := h.hasCarrier(pf), time.Now()
	return wait(ctx, time.Minute, func() (bool, error) { // a PF whose carrier comes and goes ends it with the call
		now, ok, err := h.tryReread(n)
		if err != nil || ok && now.Carrier {
			return true, err
		}
		if has := h.hasCarrier(pf); has != had || !ok {
			had, changed = has, time.Now()
		}
		switch passed := time.Since(changed); {
		case had && passed >= bound:
			return true, ErrDeviceFault
		case !had && passed >= pfNoCarrierBound:
			return true, nil
		}
		return false, nil
	})
}

// hasCarrier returns true if a PF has carrier. A PF whose netdev is not there, as while its driver restarts it, has none.
func (h *vfLifecycle) hasCarrier(pf PF) bool {
	n, err := h.reread(pf.Netdev)
	return err == nil && n.Carrier
}

// blame returns an error of a VF's driver: it is the fault of the VF only if its PF works. While a PF is reset the drivers of its VFs
// can neither create a netdev nor set it up.
func (h *vfLifecycle) blame(pf PF, vf VF, err error) error {
	if !errors.Is(err, ErrDeviceFault) {
		return err
	}
	states, stateErr := h.VFStates(pf)
	if stateErr == nil && h.hasCarrier(pf) && !pf.Resetting(vf, states) {
		return err
	}
	return fmt.Errorf("%v; %s, its pf, is being reset or has no carrier: %w", err, pf, ErrBusy)
}

// CleanVF removes all that a container can have left on a VF's netdev, by unbinding the VF from its driver: the kernel deletes
// the netdev, and with it macvlan, ipvlan and VLAN children in every namespace, XDP and tc programs, ntuple rules, RSS keys
// and private flags. The PF has still set what the container had: no child gets into another VLAN before it is gone. RestoreVF
// binds the VF again, also after a crash in between. The error matches ErrAway while the VF is in a container. A VF that is
// gone counts as clean (nil).
func (h *vfLifecycle) CleanVF(pfRef string, index int, id ID) error {
	_, vf, err := h.VF(pfRef, index, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := vf.awayIfInUse(); err != nil {
		return err
	}
	return h.unbind(vf)
}

// awayIfInUse returns the error about a VF that is not home, which matches ErrAway.
func (v VF) awayIfInUse() error {
	if why := v.InUse(); why != "" {
		return &Error{Dev: v.String(), Err: Because(ErrAway, "it %s", why)}
	}
	return nil
}

// RestoreVF restores a VF from its snapshot, under its old name and down, and verifies that. The error matches ErrAway
// while the VF is in a container. A VF that is gone with its PF's other VFs, or with the PF, counts as restored (nil).
// RestoreVF may be repeated after any failure. It does not set a PF up that an administrator has set down: if the driver
// restores nothing meanwhile, the error says so.
func (h *vfLifecycle) RestoreVF(ctx context.Context, pfRef string, index int, id ID, was Snapshot) error {
	pf, vf, err := h.VF(pfRef, index, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := vf.awayIfInUse(); err != nil {
		return err
	}
	errs := []error{h.restoreOverride(vf, was.Override)}
	vf.Override = was.Override // which Bind restores
	if vf.Netdev.Index != 0 {
		if err := h.setUp(vf.Netdev, false); err != nil {
			errs = append(errs, err)
		}
		if was.Link != nil {
			errs = append(errs, h.rename(vf.Netdev, was.Link.Name, h.kernel.SetLink))
		}
	}
	if was.VF != nil {
		err := h.RestoreVFState(ctx, pf, vf, *was.VF)
		if errors.Is(err, ErrInvalid) && !pf.Up {
			err = fmt.Errorf("%w; %s", err, pf.DownReason())
		}
		errs = append(errs, err)
	}
	if was.Unbound {
		return errors.Join(append(errs, h.unbind(vf))...)
	}
	if vf.Driver == "" && was.Link != nil { // CleanVF has unbound it
		n, err := h.bindHome(ctx, pf, vf)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		vf.Netdev = n
		errs = append(errs, h.rename(n, was.Link.Name, h.kernel.SetLink))
	}
	if vf.Netdev.Index != 0 && was.Link != nil {
		errs = append(errs, h.restoreVFLink(ctx, pf, vf, was), h.restoreTuning(id, was.Tuned))
		if was.Tuned != nil {
			errs = append(errs, h.restoreAffinityOfRebound(ctx, id, was.Tuned.Affinity))
		}
	}
	return errors.Join(errs...)
}

// bindHome binds a VF that CleanVF has unbound. VFs of some drivers do not work, and have another MAC, if they are bound while their
// PF is down: such a VF stays unbound until the PF is up.
func (h *vfLifecycle) bindHome(ctx context.Context, pf PF, vf VF) (Netdev, error) {
	if !pf.Up && needsPFUp[pf.Driver] {
		return Netdev{}, &Error{Dev: vf.String(), Op: "bind to its driver", Err: errors.New(pf.DownReason())}
	}
	return h.Bind(ctx, pf, vf)
}

// needsPFUp are the drivers of PFs whose VFs have to be bound while the PF is up (igbvf/netdev.c and ixgbevf/ixgbevf_main.c, probe:
// "PF still in reset state. Is the PF interface up?"; Linux 6.12).
var needsPFUp = map[string]bool{"igb": true, "ixgbe": true}

// restoreOverride restores the driver_override, if a crash came while the VF was being bound.
func (h *vfLifecycle) restoreOverride(vf VF, was string) error {
	if vf.Override == was {
		return nil
	}
	err := h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver_override", overrideText(was))
	if err != nil {
		return &Error{Dev: vf.String(), Op: fmt.Sprintf("set driver_override %q", was), Err: err}
	}
	return nil
}

// restoreVFLink restores what a container can change on the VF's netdev.
func (h *vfLifecycle) restoreVFLink(ctx context.Context, pf PF, vf VF, snap Snapshot) error {
	was := *snap.Link
	n, err := h.Find(ID(vf.PCI))
	if err != nil {
		return err
	}
	switch g := n.MAC.portGUID(); {
	case g != "" && g == was.MAC.portGUID(): // the other octets differ each time
		was.MAC = n.MAC
	case n.MAC == was.MAC:
	case pf.InfiniBand() || h.kernel.SetLink(n.Index, LinkMAC, Link{MAC: was.MAC}) != nil:
		if n, err = h.rereadMAC(ctx, pf, vf, n, was); err != nil {
			return err
		}
		was.MAC = n.MAC // at worst one that the driver made up, as at boot: the PF has set none
	}
	names := h.restoreAltNames(n, snap.AltNames, func(name string) bool { return isUdevNameOf(vf, pf, name) })
	if err := errors.Join(names, h.applyLink(n.ID, was, h.kernel.SetLink, required)); err != nil {
		return err
	}
	return h.setAlias(n, was.Alias)
}

// rereadMAC has the driver of a VF read its MAC again, if its netdev does not accept it.
func (h *vfLifecycle) rereadMAC(ctx context.Context, pf PF, vf VF, n Netdev, was LinkState) (Netdev, error) {
	vf.Driver = n.Driver
	n, err := h.Rebind(ctx, pf, vf)
	if err != nil {
		return n, err
	}
	if err := h.rename(n, was.Name, h.kernel.SetLink); err != nil || pf.InfiniBand() {
		return n, err
	}
	if m, err := h.restoreMAC(vf, n, was.MAC); err == nil {
		n = m
	}
	return n, nil
}
