package hw

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// TuningSpec is how a device is to be tuned. What is zero is left as it is.
type TuningSpec struct {
	Queues   int      // receive and transmit queues, each
	RxRing   int      // packets
	TxRing   int      // packets
	Features Features // by the names that people have for them, or the kernel's
	Cores    Cores
}

// Empty tells whether nothing is asked for.
func (w TuningSpec) Empty() bool { return !w.link() && w.Cores.Empty() }

// link tells whether something is asked of the netdev, and not only of its interrupts.
func (w TuningSpec) link() bool {
	return w.Queues > 0 || w.RxRing > 0 || w.TxRing > 0 || len(w.Features) > 0
}

// TuningSnapshot is how a device was before it was tuned; it has only what was asked to be otherwise.
type TuningSnapshot struct {
	Queues   *Queues        `json:",omitempty"`
	Rings    *Rings         `json:",omitempty"`
	Features Features       `json:",omitempty"` // what was wanted, by the kernel's names
	Affinity map[int]string `json:",omitempty"` // by number of the interrupt
}

// driven is what people know a netdev by, with what drives it.
func (n Netdev) driven() string {
	switch {
	case n.Driver != "":
		return fmt.Sprintf("%s (%s)", n.Name, n.Driver)
	case n.Kind != "":
		return fmt.Sprintf("%s (%s)", n.Name, n.Kind)
	}
	return n.Name
}

// CheckTuning refuses what a device cannot do, without touching it. The error matches ErrUnsupported or ErrInvalid.
func (h *Host) CheckTuning(n Netdev, w TuningSpec) error {
	_, _, err := h.planTuning(n, w)
	return err
}

// CheckFeatures refuses offloads of which the kernel knows nothing: it has the same names for every device.
func (h *Host) CheckFeatures(n Netdev, asked Features) error {
	if len(asked) == 0 {
		return nil
	}
	now, err := h.kernel.Tuning(n.Index)
	if err != nil {
		return &Error{Dev: n.driven(), Op: "read its features", Err: err}
	}
	for name, f := range now.Features {
		now.Features[name] = Feature{Active: f.Active}
	}
	if _, err := resolve(asked, now.Features); err != nil {
		return &Error{Op: fmt.Sprintf("set features %v", asked), Err: err}
	}
	return nil
}

// SnapshotTuning reads what a wish would change on a device. The errors are CheckTuning's.
func (h *Host) SnapshotTuning(id ID, w TuningSpec) (TuningSnapshot, error) {
	n, err := h.Find(id)
	if err != nil {
		return TuningSnapshot{}, err
	}
	now, want, err := h.planTuning(n, w)
	if err != nil {
		return TuningSnapshot{}, err
	}
	var was TuningSnapshot
	if want.Queues != nil {
		was.Queues = &now.Queues
	}
	if want.Rings != nil {
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

// SetTuning sets queues, rings and features as wished, and verifies them.
func (h *Host) SetTuning(id ID, w TuningSpec) error {
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	_, want, err := h.planTuning(n, w)
	if err != nil {
		return err
	}
	return h.moveTuning(n, want, wishedFeatures)
}

// restoreTuning puts back how a netdev was tuned: queues first, because a driver may change its interrupts with them.
func (h *Host) restoreTuning(id ID, was *TuningSnapshot) error {
	if was == nil {
		return nil
	}
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	err = h.moveTuning(n, TuningChange{Queues: was.Queues, Rings: was.Rings, Features: was.Features}, formerFeatures)
	return errors.Join(err, h.restoreAffinity(n, was.Affinity))
}

// planTuning reads how a netdev is tuned and works out what a wish changes about it.
func (h *Host) planTuning(n Netdev, w TuningSpec) (now Tuning, want TuningChange, err error) {
	if !w.link() {
		return now, want, nil
	}
	if now, err = h.kernel.Tuning(n.Index); err != nil {
		return now, want, &Error{Dev: n.driven(), Op: "read its queues, rings and features", Err: err}
	}
	fail := func(op string, err error) (Tuning, TuningChange, error) {
		return now, want, &Error{Dev: n.driven(), Op: op, Err: err}
	}
	if w.Queues > 0 {
		q, err := planQueues(now.MaxQueues, w.Queues)
		if err != nil {
			return fail(fmt.Sprintf("set queues %d", w.Queues), err)
		}
		want.Queues = &q
	}
	if w.RxRing > 0 || w.TxRing > 0 {
		r, err := planRings(now, w)
		if err != nil {
			return fail(fmt.Sprintf("set rings %v", r), err)
		}
		want.Rings = &r
	}
	if len(w.Features) > 0 {
		f, err := resolve(w.Features, now.Features)
		if err != nil {
			return fail(fmt.Sprintf("set features %v", w.Features), err)
		}
		want.Features = f
	}
	return now, want, nil
}

// planQueues is how a driver that can have so many queues is asked for n.
func planQueues(most Queues, n int) (Queues, error) {
	switch separate := min(most.Rx, most.Tx); {
	case most.Combined == 0 && separate == 0:
		return Queues{}, fmt.Errorf("their number cannot be changed: %w", ErrUnsupported)
	case most.Combined >= n:
		return Queues{Combined: n}, nil
	case most.Combined == 0 && separate >= n:
		return Queues{Rx: n, Tx: n}, nil
	default:
		return Queues{}, fmt.Errorf("it can have at most %d: %w", max(most.Combined, separate), ErrInvalid)
	}
}

// planRings is the rings that are asked for, the other one as it is.
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
		return r, fmt.Errorf("they can be at most %v: %w", now.MaxRings, ErrInvalid)
	}
	return r, nil
}

// tuneAttrs are a netdev's tuning in the order of setting: queues are made anew with rings of the size that they had.
func tuneAttrs(features attr[Tuning, TuningChange]) []attr[Tuning, TuningChange] {
	return []attr[Tuning, TuningChange]{
		row("queues", func(s *Tuning) *Queues { return &s.Queues }, func(c *TuningChange) **Queues { return &c.Queues }),
		row("rings", func(s *Tuning) *Rings { return &s.Rings }, func(c *TuningChange) **Rings { return &c.Rings }),
		features,
	}
}

// wishedFeatures are offloads that have to be active; formerFeatures are to be wanted as before, whatever comes of it.
var (
	wishedFeatures = featuresBy(func(f Feature) bool { return f.Active })
	formerFeatures = featuresBy(func(f Feature) bool { return f.Wanted })
)

// featuresBy is the row of the offloads, of which on says whether they are as they should be.
func featuresBy(on func(Feature) bool) attr[Tuning, TuningChange] {
	are := func(s *Tuning) Features {
		all := Features{}
		for name, f := range s.Features {
			all[name] = on(f)
		}
		return all
	}
	return attr[Tuning, TuningChange]{
		name: "features",
		same: func(a, b *Tuning) bool { return maps.Equal(are(a), are(b)) },
		put:  func(c *TuningChange, want *Tuning) { c.Features = are(want) },
		show: func(s *Tuning) string { return are(s).String() },
	}
}

// moveTuning drives a netdev's tuning to what is in want and leaves the rest.
func (h *Host) moveTuning(n Netdev, want TuningChange, features attr[Tuning, TuningChange]) error {
	var to Tuning
	var asked []string
	if want.Queues != nil {
		to.Queues, asked = *want.Queues, append(asked, "queues")
	}
	if want.Rings != nil {
		to.Rings, asked = *want.Rings, append(asked, "rings")
	}
	if len(want.Features) > 0 {
		to.Features, asked = map[string]Feature{}, append(asked, "features")
		for name, on := range want.Features {
			to.Features[name] = Feature{Active: on, Wanted: on}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	return mover[Tuning, TuningChange]{
		dev:   n.driven(),
		attrs: tuneAttrs(features),
		read: func() (Tuning, error) {
			now, err := h.kernel.Tuning(n.Index)
			maps.DeleteFunc(now.Features, func(name string, _ Feature) bool { _, ok := to.Features[name]; return !ok })
			return now, err
		},
		set: func(c TuningChange) error { return h.kernel.SetTuning(n.Index, c) },
		policy: func(name string) Policy {
			if slices.Contains(asked, name) {
				return Required
			}
			return Ignore
		},
	}.move(to)
}
