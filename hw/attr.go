package hw

import (
	"errors"
	"fmt"
)

// Policy says how much an attribute of a spec matters.
type Policy int

// The policies, weakest first.
const (
	Ignore     Policy = iota // do not touch it
	BestEffort               // set it; a driver that does not support the attribute may keep it
	Required                 // set it, or fail
)

// An attrRow is one attribute of a device whose settings are an S. Comparing, setting, verifying and restoring work on rows;
// restoring is setting the old value.
type attrRow[S any] struct {
	name string
	same func(a, b *S) bool
	copy func(to, from *S)
	show func(s *S) string
}

// rowOf returns the row of the attribute whose value is at field.
func rowOf[S any, T comparable](name string, field func(*S) *T) attrRow[S] {
	return attrRow[S]{
		name: name,
		same: func(a, b *S) bool { return *field(a) == *field(b) },
		copy: func(to, from *S) { *field(to) = *field(from) },
		show: func(s *S) string { return fmt.Sprint(*field(s)) },
	}
}

// String returns the attribute's name.
func (r *attrRow[S]) String() string { return r.name }

// MarshalText returns the attribute's name, by which records know it.
func (r *attrRow[S]) MarshalText() ([]byte, error) { return []byte(r.name), nil }

// Copy sets the attribute in to to its value in from.
func (r *attrRow[S]) Copy(to, from *S) { r.copy(to, from) }

// Same returns true if the attribute has the same value in both.
func (r *attrRow[S]) Same(a, b S) bool { return r.same(&a, &b) }

// Value returns the attribute's value in s for people, such as "9000".
func (r *attrRow[S]) Value(s S) string { return r.show(&s) }

// Op describes setting the attribute to its value in want, such as "set mtu 9000".
func (r *attrRow[S]) Op(want S) string { return fmt.Sprintf("set %s %s", r.name, r.show(&want)) }

func (r *attrRow[S]) row() *attrRow[S] { return r }

// attrNamed returns the attribute with a name, as in a record.
func attrNamed[A fmt.Stringer](attrs []A, name string) (A, error) {
	for _, a := range attrs {
		if a.String() == name {
			return a, nil
		}
	}
	var none A
	return none, fmt.Errorf("attribute %q: %w", name, ErrInvalid)
}

// An applier sets a device's attributes to wanted values, one by one, and reads them back.
type applier[S any, A interface{ row() *attrRow[S] }] struct {
	dev    string
	with   string // the driver that sets them, for errors; "" if it is the device's own
	attrs  []A    // in the order of setting
	now    *S     // what they are, if that was read just now; nil if it is to be read
	read   func() (S, error)
	set    func(A, S) error
	policy func(A) Policy
	undo   bool // restore at once what is not as wanted afterwards
}

// required is the policy of restoring.
func required[A any](A) Policy { return Required }

// apply sets the attributes that differ from want, then verifies them. It continues after a failure, to get as close to
// want as possible, and returns the errors of all attributes. An attribute with policy BestEffort is skipped if the driver
// does not support it, and not verified: some drivers accept spoofchk and report nothing.
func (p applier[S, A]) apply(want S) error {
	if p.now == nil {
		now, err := p.read()
		if err != nil {
			return &Error{Dev: p.dev, Op: "read", Err: err}
		}
		p.now = &now
	}
	now := *p.now
	var errs []error
	var verify []A
	for _, a := range p.attrs {
		policy := p.policy(a)
		if policy == Ignore || a.row().same(&now, &want) {
			continue
		}
		err := p.set(a, want)
		switch {
		case err == nil && policy == Required:
			verify = append(verify, a)
		case err == nil:
		case policy == BestEffort && errors.Is(err, ErrUnsupported):
		default:
			errs = append(errs, p.failed(a, want, err))
		}
	}
	return errors.Join(append(errs, p.verify(verify, now, want))...)
}

// failed returns the error of setting an attribute.
func (p applier[S, A]) failed(a A, want S, err error) error {
	op := a.row().Op(want)
	if p.with != "" {
		op += " with " + p.with
	}
	return &Error{Dev: p.dev, Op: op, Err: err}
}

// verify reads the attributes back. Some drivers accept a value without applying it, or apply it without reporting it, so
// that a later restore would see no difference (ixgbe, link_state; Linux 6.12, ixgbe_ndo_set_vf_link_state). With undo set,
// verify therefore restores the old value at once.
func (p applier[S, A]) verify(attrs []A, was, want S) error {
	if len(attrs) == 0 {
		return nil
	}
	now, err := p.read()
	if err != nil {
		return &Error{Dev: p.dev, Op: "read back", Err: err}
	}
	var errs []error
	for _, a := range attrs {
		if a.row().same(&now, &want) {
			continue
		}
		errs = append(errs, p.failed(a, want, Because(ErrInvalid, "the device says %s", a.row().show(&now))))
		if !p.undo {
			continue
		}
		if err := p.set(a, was); err != nil {
			errs = append(errs, p.failed(a, was, err))
		}
	}
	return errors.Join(errs...)
}
