package alloc

import (
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// State is how far a device is on its way to a container and back. On disk it means:
//
//	claimed      chosen; snapshot and specs are stored; perhaps half set up. After a crash: restore it.
//	ready        set up and verified, in the host
//	lent         Join was answered; it may be in a container
//	freeing      the endpoint is gone; the device is awaited and restored
//	quarantined  could not be restored, for the reason given; tried again, and given to no endpoint
type State string

// The states of an allocation. A free device has no record.
const (
	Claimed     State = "claimed"
	Ready       State = "ready"
	Lent        State = "lent"
	Freeing     State = "freeing"
	Quarantined State = "quarantined"

	free State = ""
)

// next has the states that may follow a state.
var next = map[State][]State{
	free:        {Claimed, Quarantined},    // quarantined: an administrator takes it out of use
	Claimed:     {Claimed, Ready, Freeing}, // claimed again: the snapshot is completed once the VF has a netdev
	Ready:       {Lent, Freeing},
	Lent:        {Lent, Freeing},              // lent again: the engine joins it once more
	Freeing:     {Freeing, Quarantined, free}, // freeing again: what a container has left is removed
	Quarantined: {Quarantined, free},
}

// checkNext refuses a transition that the table does not have.
func (a *Allocation) checkNext(to State) error {
	switch {
	case slices.Contains(next[a.State], to):
		return nil
	case to == free:
		return fmt.Errorf("%s: cannot be free while %s", a.Label, a.State)
	}
	return fmt.Errorf("%s: cannot go from %s to %s", a.Label, a.State, to)
}

// name is what logs and counters call a state.
func (s State) name() string {
	if s == free {
		return "free"
	}
	return string(s)
}

// Field has a state in a log line.
func (s State) Field() zap.Field { return zap.String("to", s.name()) }
