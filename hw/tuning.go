package hw

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// TuningSpec is how a device is to be tuned. Zero values are left as they are.
type TuningSpec struct {
	Queues   int      // receive and transmit queues, each
	RxRing   int      // packets
	TxRing   int      // packets
	Features Features // by ethtool's names of groups, or by the kernel's names
	Cores    Cores
	// PrivateFlags are switches that the driver has for itself, by its names for them, in any case.
	PrivateFlags Features `json:",omitempty"`
}

// Empty returns true if the spec changes nothing.
func (w TuningSpec) Empty() bool { return !w.link() && w.Cores.Empty() }

// link returns true if the spec changes the netdev, and not only its interrupts.
func (w TuningSpec) link() bool {
	return w.Queues > 0 || w.RxRing > 0 || w.TxRing > 0 || len(w.Features) > 0 || len(w.PrivateFlags) > 0
}

// TuningSnapshot is how a device was before it was tuned; it has only what the spec changes.
type TuningSnapshot struct {
	Queues   *Queues        `json:",omitempty"`
	Rings    *Rings         `json:",omitempty"`
	Features Features       `json:",omitempty"` // what was wanted, by the kernel's names
	Affinity map[int]string `json:",omitempty"` // by number of the interrupt
	// PrivateFlags are by the driver's names.
	PrivateFlags Features `json:",omitempty"`
}

// nameAndDriver returns the name of a netdev in messages, with its driver or kind.
func (n Netdev) nameAndDriver() string {
	switch {
	case n.Driver != "":
		return fmt.Sprintf("%s (%s)", n.Name, n.Driver)
	case n.Kind != "":
		return fmt.Sprintf("%s (%s)", n.Name, n.Kind)
	}
	return n.Name
}

// Rings returns the rings of a netdev in the host, and how large they can be. Both are zero if its driver has none.
func (h *tuner) Rings(n Netdev) (now, most Rings, err error) {
	t, err := h.kernel.Tuning(n.Index)
	if errors.Is(err, ErrUnsupported) {
		err = nil
	}
	return t.Rings, t.MaxRings, wrapped(n.Name, "read its rings", err)
}

// DriverInfo returns what the driver of a netdev in the host says of itself, nothing if it says nothing.
func (h *tuner) DriverInfo(n Netdev) (DriverInfo, error) {
	d, err := h.kernel.DriverInfo(n.Index)
	if errors.Is(err, ErrUnsupported) {
		err = nil
	}
	return d, wrapped(n.Name, "read its driver's name and firmware", err)
}

// CheckTuning refuses a spec that a device cannot do, without touching it. The error matches ErrUnsupported or
// ErrInvalid.
func (h *tuner) CheckTuning(n Netdev, w TuningSpec) error {
	_, _, err := h.planTuning(n, w)
	return err
}

// privateFlags returns the private flags of a device, by the driver's names.
func (h *tuner) privateFlags(n Netdev) (Features, error) {
	all, err := h.kernel.Controls(n.Index)
	flags := Features{}
	for _, c := range all {
		if c.Kind == ControlPrivateFlag {
			flags[c.Name] = c.On()
		}
	}
	return flags, err
}

// planFlags returns private flags that were asked for in any case by the driver's names, with their values of now and as asked. One that the
// driver does not have is an error.
func (h *tuner) planFlags(n Netdev, asked Features) (now, want Features, _ error) {
	has, err := h.privateFlags(n)
	if err != nil {
		return nil, nil, err
	}
	now, want = Features{}, Features{}
	names := slices.Sorted(maps.Keys(has))
	for name, on := range asked {
		i := slices.IndexFunc(names, func(known string) bool { return strings.EqualFold(known, name) })
		if i < 0 {
			return nil, nil, Because(ErrUnsupported, "%s is none of the driver's, which are: %s", name, cmp.Or(strings.Join(names, ", "), "none"))
		}
		now[names[i]], want[names[i]] = has[names[i]], on
	}
	return now, want, nil
}

// setTuning sets one attribute of a link's tuning. The kernel has private flags as controls.
func (h *tuner) setTuning(index int, a TuningAttr, t Tuning) error {
	if a != TuningFlags {
		return h.kernel.SetTuning(index, a, t)
	}
	for _, name := range slices.Sorted(maps.Keys(t.PrivateFlags)) {
		if err := h.kernel.SetControl(index, PrivateFlag(name, t.PrivateFlags[name])); err != nil {
			return err
		}
	}
	return nil
}

// CheckFeatures refuses offloads that the kernel does not know: it has the same names for every device.
func (h *tuner) CheckFeatures(n Netdev, asked Features) error {
	if len(asked) == 0 {
		return nil
	}
	now, err := h.kernel.Tuning(n.Index)
	if err != nil {
		return &Error{Dev: n.nameAndDriver(), Op: "read its features", Err: err}
	}
	for name, f := range now.Features {
		now.Features[name] = Feature{Active: f.Active}
	}
	if _, err := resolve(asked, now.Features); err != nil {
		return &Error{Op: fmt.Sprintf("set features %v", asked), Err: err}
	}
	return nil
}

// SnapshotTuning reads what a spec would change on a device. The errors are CheckTuning's.
func (h *tuner) SnapshotTuning(id ID, w TuningSpec) (TuningSnapshot, error) {
	n, err := h.Find(id)
	if err != nil {
		return TuningSnapshot{}, err
	}
	now, want, err := h.planTuning(n, w)
	if err != nil {
		return TuningSnapshot{}, err
	}
	was := TuningSnapshot{PrivateFlags: now.PrivateFlags}
	if want.has(TuningQueues) {
		was.Queues = &now.Queues
	}
	if want.has(TuningRings) {
		was.Rings = &now.Rings
	}
	for name := range want.Features {
		if was.Features == nil {
			was.Features = Features{}
		}
		was.Features[name] = now.Features[name].Wanted
	}
	return was, nil
}

// SetTuning sets queues, rings and features as in the spec, and verifies them: the offloads have to be active.
func (h *tuner) SetTuning(id ID, w TuningSpec) error {
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	_, want, err := h.planTuning(n, w)
	if err != nil {
		return err
	}
	return h.applyTuning(n, want, func(f Feature) bool { return f.Active })
}

// restoreTuning restores how a netdev was tuned: queues first, because a driver may change its interrupts with them. Offloads
// have to be wanted as before, whether they are active or not.
func (h *tuner) restoreTuning(id ID, was *TuningSnapshot) error {
	if was == nil {
		return nil
	}
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	return h.restoreTuned(n, was)
}

// restoreTuned is restoreTuning of a netdev that was found just now.
func (h *tuner) restoreTuned(n Netdev, was *TuningSnapshot) error {
	if was == nil {
		return nil
	}
	var want tuningPlan
	if was.Queues != nil {
		want.Queues = *was.Queues
		want.add(TuningQueues)
	}
	if was.Rings != nil {
		want.Rings = *was.Rings
		want.add(TuningRings)
	}
	want.addFeatures(was.Features)
	if len(was.PrivateFlags) > 0 {
		want.PrivateFlags = was.PrivateFlags
		want.add(TuningFlags)
	}
	err := h.applyTuning(n, want, func(f Feature) bool { return f.Wanted })
	return errors.Join(err, h.restoreAffinity(n, was.Affinity))
}

// A tuningPlan is how a netdev is to be tuned: the attributes, and their values.
type tuningPlan struct {
	attrs []TuningAttr
	Tuning
}

func (p *tuningPlan) add(a TuningAttr)      { p.attrs = append(p.attrs, a) }
func (p *tuningPlan) has(a TuningAttr) bool { return slices.Contains(p.attrs, a) }

// addFeatures adds offloads by the kernel's names, if there are any.
func (p *tuningPlan) addFeatures(wanted Features) {
	if len(wanted) == 0 {
		return
	}
	p.add(TuningFeatures)
	p.Features = map[string]Feature{}
	for name, on := range wanted {
		p.Features[name] = Feature{Wanted: on}
	}
}

// planTuning reads how a netdev is tuned and returns what a spec changes.
func (h *tuner) planTuning(n Netdev, w TuningSpec) (now Tuning, want tuningPlan, err error) {
	if !w.link() {
		return now, want, nil
	}
	if now, err = h.kernel.Tuning(n.Index); err != nil {
		return now, want, &Error{Dev: n.nameAndDriver(), Op: "read its queues, rings and features", Err: err}
	}
	fail := func(op string, err error) (Tuning, tuningPlan, error) {
		return now, want, &Error{Dev: n.nameAndDriver(), Op: op, Err: err}
	}
	if w.Queues > 0 {
		if want.Queues, err = planQueues(now.MaxQueues, w.Queues); err != nil {
			return fail(fmt.Sprintf("set queues %d", w.Queues), err)
		}
		want.add(TuningQueues)
	}
	if w.RxRing > 0 || w.TxRing > 0 {
		if want.Rings, err = planRings(now, w); err != nil {
			return fail(fmt.Sprintf("set rings %v", want.Rings), err)
		}
		want.add(TuningRings)
	}
	if len(w.PrivateFlags) > 0 {
		if now.PrivateFlags, want.PrivateFlags, err = h.planFlags(n, w.PrivateFlags); err != nil {
			return fail(fmt.Sprintf("set private flags %v", w.PrivateFlags), err)
		}
		want.add(TuningFlags)
	}
	wanted, err := resolve(w.Features, now.Features)
	if err != nil {
		return fail(fmt.Sprintf("set features %v", w.Features), err)
	}
	want.addFeatures(wanted)
	return now, want, nil
}

// planQueues returns the queues to set for n in each direction, with a driver that can have most.
func planQueues(most Queues, n int) (Queues, error) {
	switch separate := min(most.Rx, most.Tx); {
	case most.Combined == 0 && separate == 0:
		return Queues{}, fmt.Errorf("their number cannot be changed: %w", ErrUnsupported)
	case most.Combined >= n:
		return Queues{Combined: n}, nil
	case most.Combined == 0 && separate >= n:
		return Queues{Rx: n, Tx: n}, nil
	default:
		return Queues{}, Because(ErrInvalid, "it can have at most %d", max(most.Combined, separate))
	}
}

// planRings returns the rings to set; a ring that the spec does not name keeps its size.
func planRings(now Tuning, w TuningSpec) (Rings, error) {
	r := now.Rings
	if w.RxRing > 0 {
		r.Rx = w.RxRing
	}
	if w.TxRing > 0 {
		r.Tx = w.TxRing
	}
	switch {
	case w.RxRing > 0 && now.MaxRings.Rx == 0 || w.TxRing > 0 && now.MaxRings.Tx == 0:
		return r, fmt.Errorf("their size cannot be changed: %w", ErrUnsupported)
	case r.Rx > now.MaxRings.Rx || r.Tx > now.MaxRings.Tx:
		return r, Because(ErrInvalid, "they can be at most %v", now.MaxRings)
	}
	return r, nil
}

// applyTuning sets the attributes of a plan, and leaves the others. on returns whether an offload that was set is as it
// should be.
func (h *tuner) applyTuning(n Netdev, want tuningPlan, on func(Feature) bool) error {
	if len(want.attrs) == 0 {
		return nil
	}
	return applier[Tuning, TuningAttr]{
		dev:   n.nameAndDriver(),
		attrs: tuningAttrs,
		read: func() (Tuning, error) {
			now, err := h.kernel.Tuning(n.Index)
			features := map[string]Feature{}
			for name, f := range now.Features {
				if _, ok := want.Features[name]; ok {
					features[name] = Feature{Wanted: on(f)}
				}
			}
			now.Features = features
			if err == nil && want.has(TuningFlags) {
				now.PrivateFlags, err = h.privateFlags(n)
				maps.DeleteFunc(now.PrivateFlags, func(name string, _ bool) bool { _, ok := want.PrivateFlags[name]; return !ok })
			}
			return now, err
		},
		set: func(a TuningAttr, t Tuning) error { return h.setTuning(n.Index, a, t) },
		policy: func(a TuningAttr) Policy {
			if want.has(a) {
				return Required
			}
			return Ignore
		},
	}.apply(want.Tuning)
}
