package hw

import (
	"errors"
	"fmt"
)

// Policy says how much an attribute of a wish matters.
type Policy int

// The needs, weakest first.
const (
	Ignore     Policy = iota // not to be touched
	BestEffort               // set it; a driver that does not know the attribute may keep it
	Required                 // set it, or fail
)

// An attr is one attribute of a device: a row that comparing, setting, verifying and putting back are all made of. S is
// the state that holds its value, C the change that sets it. Putting back is setting the old value.
type attr[S, C any] struct {
	name string
	only string // type of the links that have it, such as "infiniband"; "" for all
	same func(a, b *S) bool
	put  func(c *C, want *S)
	show func(s *S) string
}

// row makes an attr from where its value is in the state and where its pointer is in the change.
func row[S, C any, T comparable](name string, in func(*S) *T, change func(*C) **T) attr[S, C] {
	return attr[S, C]{
		name: name,
		same: func(a, b *S) bool { return *in(a) == *in(b) },
		put:  func(c *C, want *S) { v := *in(want); *change(c) = &v },
		show: func(s *S) string { return fmt.Sprint(*in(s)) },
	}
}

// onlyOf is the row for links of one type.
func (a attr[S, C]) onlyOf(linkType string) attr[S, C] {
	a.only = linkType
	return a
}

// A mover drives a device's state to a wanted one, attribute by attribute, and reads it back.
type mover[S, C any] struct {
	dev    string
	with   string // the driver that sets them, for errors; "" where it is the device's own
	attrs  []attr[S, C]
	read   func() (S, error)
	set    func(C) error
	policy func(name string) Policy
	undo   bool // what is not as wanted afterwards is set back at once
}

// move sets what differs from want, in the order of the rows, then verifies. It goes on after a failure, so that as
// much as possible is as wanted, and returns everything that is not. An attribute that is only to be tried is left out
// when the driver does not support it, and not verified: some drivers take spoofchk and report nothing.
func (m mover[S, C]) move(want S) error {
	now, err := m.read()
	if err != nil {
		return &Error{Dev: m.dev, Op: "read", Err: err}
	}
	var errs []error
	var verify []attr[S, C]
	for _, a := range m.attrs {
		policy := m.policy(a.name)
		if policy == Ignore || a.same(&now, &want) {
			continue
		}
		var c C
		a.put(&c, &want)
		err := m.set(c)
		switch {
		case err == nil && policy == Required:
			verify = append(verify, a)
		case err == nil:
		case policy == BestEffort && errors.Is(err, ErrUnsupported):
		default:
			errs = append(errs, &Error{Dev: m.dev, Op: m.op(a, &want), Err: err})
		}
	}
	return errors.Join(append(errs, m.verify(verify, now, want))...)
}

// op is setting an attribute, in words.
func (m mover[S, C]) op(a attr[S, C], want *S) string {
	op := fmt.Sprintf("set %s %s", a.name, a.show(want))
	if m.with != "" {
		op += " with " + m.with
	}
	return op
}

// verify reads the state back: some drivers accept what they then do not do, or do and do not report, which could not be
// found out when it is to be put back (ixgbe, link_state; Linux 6.12, ixgbe_ndo_set_vf_link_state). So it is at once.
func (m mover[S, C]) verify(attrs []attr[S, C], was, want S) error {
	if len(attrs) == 0 {
		return nil
	}
	now, err := m.read()
	if err != nil {
		return &Error{Dev: m.dev, Op: "read back", Err: err}
	}
	var errs []error
	for _, a := range attrs {
		if !a.same(&now, &want) {
			errs = append(errs, &Error{Dev: m.dev, Op: m.op(a, &want), Err: fmt.Errorf("the device says %s: %w", a.show(&now), ErrInvalid)})
			if !m.undo {
				continue
			}
			var back C
			a.put(&back, &was)
			if err := m.set(back); err != nil {
				errs = append(errs, &Error{Dev: m.dev, Op: m.op(a, &was), Err: err})
			}
		}
	}
	return errors.Join(errs...)
}
