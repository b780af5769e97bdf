package invariant

import (
	"fmt"
	"slices"
)

// Facts are what has to agree, each read at a moment at which nothing was under way.
type Facts struct {
	Ledger *Ledger
	Host   *Host   // now
	Before *Host   // before the plugin had anything to do with it
	Engine *Engine // what the engine knows
	// Quarantine allows devices to be in quarantine: something is broken that cannot be put back.
	Quarantine bool
}

// Violations are what does not hold, in words, in a certain order; none when all is well.
func (f Facts) Violations() []string {
	v := &violations{}
	if f.Ledger != nil {
		f.ledger(v)
		f.addresses(v)
		f.node(v)
	}
	if f.Ledger != nil && f.Host != nil {
		f.made(v)
		f.vfs(v)
	}
	if f.Before != nil && f.Host != nil {
		f.devices(v)
	}
	if f.Ledger != nil && f.Engine != nil {
		f.engine(v)
		f.leases(v)
		f.handles(v)
		f.nothing(v)
	}
	slices.Sort(v.found)
	return slices.Compact(v.found)
}

// violations collects.
type violations struct{ found []string }

// add notes one.
func (v *violations) add(format string, args ...any) {
	v.found = append(v.found, fmt.Sprintf(format, args...))
}
