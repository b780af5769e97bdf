package hw

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tuning is how a link is set up for speed, and the most that it can be.
type Tuning struct {
	Queues, MaxQueues Queues
	Rings, MaxRings   Rings
	Features          map[string]Feature // by the kernel's names, such as "rx-gro"
}

// Queues are a link's queues. Most drivers have only combined ones, which receive and send; a few have only separate ones.
type Queues struct{ Combined, Rx, Tx int }

// Rings are how many packets each of a link's queues holds.
type Rings struct{ Rx, Tx int }

// Feature is an offload. What somebody wants is not active while something that it needs is not.
type Feature struct {
	Active bool
	Wanted bool
	Fixed  bool // cannot be changed on this device
}

// TuningChange is a change of a link's tuning; fields that are nil are left alone.
type TuningChange struct {
	Queues   *Queues
	Rings    *Rings
	Features Features
}

// Features are offloads that are wanted or not, by name.
type Features map[string]bool

// Each does for a link's tuning what LinkChange.Each does for the link.
func (c TuningChange) Each(do func(op string, one TuningChange) error) error {
	var features *Features
	if c.Features != nil {
		features = &c.Features
	}
	return inOrder(do,
		value(c.Queues, "set queues %v", func(v *Queues) TuningChange { return TuningChange{Queues: v} }),
		value(c.Rings, "set rings %v", func(v *Rings) TuningChange { return TuningChange{Rings: v} }),
		value(features, "set features %v", func(v *Features) TuningChange { return TuningChange{Features: *v} }),
	)
}

// String is "4", or "2 rx, 2 tx" for separate queues.
func (q Queues) String() string {
	if q.Rx == 0 && q.Tx == 0 {
		return fmt.Sprint(q.Combined)
	}
	return fmt.Sprintf("%d rx, %d tx", q.Combined+q.Rx, q.Combined+q.Tx)
}

// String is "512 rx, 1024 tx".
func (r Rings) String() string { return fmt.Sprintf("%d rx, %d tx", r.Rx, r.Tx) }

// String is "rx-gro=off,tx-tcp-segmentation=on".
func (f Features) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, name+"="+onOrOff(f[name]))
	}
	return strings.Join(all, ",")
}

func onOrOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
