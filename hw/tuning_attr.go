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

// Features are offloads that are wanted or not, by name.
type Features map[string]bool

// A TuningAttr is one attribute of a link's tuning. The zero value is not an attribute.
type TuningAttr struct{ *attrRow[Tuning] }

// The attributes of a link's tuning.
var (
	TuningQueues = TuningAttr{rowAt("queues", func(t *Tuning) *Queues { return &t.Queues })}
	TuningRings  = TuningAttr{rowAt("rings", func(t *Tuning) *Rings { return &t.Rings })}
	// TuningFeatures is which offloads are wanted, of those that Tuning.Features names.
	TuningFeatures = TuningAttr{&attrRow[Tuning]{
		name: "features",
		same: func(a, b *Tuning) bool { return maps.Equal(a.wanted(), b.wanted()) },
		copy: func(to, from *Tuning) { to.Features = maps.Clone(from.Features) },
		show: func(t *Tuning) string { return t.wanted().String() },
	}}
)

// tuningAttrs lists the attributes in the order of setting: new queues have rings of the size that the old ones had.
var tuningAttrs = []TuningAttr{TuningQueues, TuningRings, TuningFeatures}

func rowAt[T comparable](name string, field func(*Tuning) *T) *attrRow[Tuning] {
	row := rowOf(name, field)
	return &row
}

// wanted returns which offloads are wanted.
func (t *Tuning) wanted() Features {
	all := Features{}
	for name, f := range t.Features {
		all[name] = f.Wanted
	}
	return all
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
