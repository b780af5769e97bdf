package hw

import (
	"fmt"
	"slices"
)

// Each hands do the fields of c that are not nil, one per call, in the order in which they are declared and each with
// the words for it, such as "set mtu 9000". It stops at the first error, which it puts those words before when there
// was more than one field. Every implementation of Kernel goes through it, so that all keep the same order.
func (c LinkChange) Each(do func(op string, one LinkChange) error) error {
	return inOrder(do,
		value(c.DelAltName, "remove altname %s", func(v *string) LinkChange { return LinkChange{DelAltName: v} }),
		value(c.AddAltName, "add altname %s", func(v *string) LinkChange { return LinkChange{AddAltName: v} }),
		onOff(c.Up, "set up", "set down", func(v *bool) LinkChange { return LinkChange{Up: v} }),
		value(c.Master, "set master %d", func(v *int) LinkChange { return LinkChange{Master: v} }),
		value(c.Name, "set name %s", func(v *string) LinkChange { return LinkChange{Name: v} }),
		value(c.Alias, "set alias %q", func(v *string) LinkChange { return LinkChange{Alias: v} }),
		value(c.MAC, "set mac %s", func(v *MAC) LinkChange { return LinkChange{MAC: v} }),
		value(c.MTU, "set mtu %d", func(v *int) LinkChange { return LinkChange{MTU: v} }),
		value(c.TxQLen, "set txqueuelen %d", func(v *int) LinkChange { return LinkChange{TxQLen: v} }),
		onOff(c.Promisc, "set promisc on", "set promisc off", func(v *bool) LinkChange { return LinkChange{Promisc: v} }),
		onOff(c.AllMulti, "set allmulti on", "set allmulti off", func(v *bool) LinkChange { return LinkChange{AllMulti: v} }),
		onOff(c.NoARP, "set arp off", "set arp on", func(v *bool) LinkChange { return LinkChange{NoARP: v} }),
		onOff(c.NoMulticast, "set multicast off", "set multicast on", func(v *bool) LinkChange { return LinkChange{NoMulticast: v} }),
	)
}

// Each does for a VF what LinkChange.Each does for a link.
func (c VFChange) Each(do func(op string, one VFChange) error) error {
	return inOrder(do,
		value(c.NodeGUID, "set node_guid %q", func(v *GUID) VFChange { return VFChange{NodeGUID: v} }),
		value(c.PortGUID, "set port_guid %q", func(v *GUID) VFChange { return VFChange{PortGUID: v} }),
		value(c.MAC, "set mac %q", func(v *MAC) VFChange { return VFChange{MAC: v} }),
		value(c.VLAN, "set vlan %v", func(v *VLAN) VFChange { return VFChange{VLAN: v} }),
		value(c.Rate, "set rate %v", func(v *Rate) VFChange { return VFChange{Rate: v} }),
		value(c.LinkMode, "set link_state %v", func(v *LinkMode) VFChange { return VFChange{LinkMode: v} }),
		onOff(c.Spoofchk, "set spoofchk on", "set spoofchk off", func(v *bool) VFChange { return VFChange{Spoofchk: v} }),
		onOff(c.Trust, "set trust on", "set trust off", func(v *bool) VFChange { return VFChange{Trust: v} }),
	)
}

// A step is one field of a change.
type step[C any] struct {
	op  string
	one C
}

// value is the step that sets v, in the words of format; nil when v is nil.
func value[T, C any](v *T, format string, only func(*T) C) *step[C] {
	if v == nil {
		return nil
	}
	return &step[C]{op: fmt.Sprintf(format, *v), one: only(v)}
}

// onOff is value for a setting that is on or off.
func onOff[C any](v *bool, on, off string, only func(*bool) C) *step[C] {
	if v == nil {
		return nil
	}
	op := off
	if *v {
		op = on
	}
	return &step[C]{op: op, one: only(v)}
}

// inOrder does the steps that are there until one fails.
func inOrder[C any](do func(string, C) error, steps ...*step[C]) error {
	steps = slices.DeleteFunc(steps, func(s *step[C]) bool { return s == nil })
	for _, s := range steps {
		err := do(s.op, s.one)
		if err != nil && len(steps) > 1 {
			return &Error{Op: s.op, Err: err}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// String is how a user writes the tag: "100", or "100 qos 3" with a priority.
func (v VLAN) String() string {
	text := fmt.Sprint(v.ID)
	if v.QoS != 0 {
		text += fmt.Sprint(" qos ", v.QoS)
	}
	if v.Proto != "" {
		text += " proto " + string(v.Proto)
	}
	return text
}

// String is "min 100 max 1000 Mbit/s".
func (r Rate) String() string { return fmt.Sprintf("min %d max %d Mbit/s", r.Min, r.Max) }

// String is the word for it in iproute2.
func (m LinkMode) String() string {
	if m == "" {
		return "auto"
	}
	return string(m)
}
