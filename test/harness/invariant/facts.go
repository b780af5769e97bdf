package invariant

import (
	"fmt"
	"slices"
)

// Facts are the states that must agree, each read while no operation was in progress.
type Facts struct {
	Ledger *Ledger
	Host   *Host   // now
	Before *Host   // before the plugin had anything to do with it
	Engine *Engine // what the engine knows
	// Quarantine allows devices in quarantine: a device is broken and cannot be restored.
	Quarantine bool
}

// Violations returns what does not agree, as sentences in a fixed order; none if everything agrees.
func (f Facts) Violations() []string {
	v := &violations{}
	if f.Ledger != nil {
		f.ledger(v)
		f.addresses(v)
		if !f.Ledger.Shared { // otherwise what is leased may be in the outbox still
			f.owners(v)
		}
		f.node(v)
	}
	if f.Ledger != nil && f.Host != nil {
		f.made(v)
		f.vfs(v)
		f.announced(v)
	}
	if f.Before != nil && f.Host != nil {
		f.devices(v)
	}
	if f.Ledger != nil && f.Engine != nil {
		f.engine(v)
		f.attached(v)
		f.leases(v)
		f.handles(v)
		f.nothing(v)
	}
	slices.Sort(v.found)
	return slices.Compact(v.found)
}

// violations collects sentences.
type violations struct{ found []string }

// add adds one.
func (v *violations) add(format string, args ...any) {
	v.found = append(v.found, fmt.Sprintf(format, args...))
}
