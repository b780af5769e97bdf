package engineview

import "time"

// A State is how far an allocation is.
type State int

// The states of allocations that the engine can know of. Ended is any other: its endpoint is gone.
const (
	Ended   State = iota
	Claimed       // it is being set up
	Ready         // it is set up, and waits to be joined
	Lent          // it was joined; its device may be in a container
)

// An Allocation has the facts about an allocation of which no call is at work.
type Allocation struct {
	Network, Endpoint string
	State             State
	Since             time.Time // when it got into its state
	FromEarlierBoot   bool
	// Home is since when its device is seen in the host without a break; zero if it is not there. It matters for Lent only.
	Home time.Time
	// Whole is for an allocation that is part of another, as a port's is of a bond's.
	Whole Whole
}

// Whole says what became of the allocation that another one is part of.
type Whole int

// NoWhole is for an allocation that is not part of another.
const (
	NoWhole Whole = iota
	WholeHeld
	WholeEnded // it is gone, or being freed
)

// An Action is what to do with an allocation.
type Action int

// Keep leaves it as it is. Free frees its device and removes its endpoint. FreePart frees its device: the endpoint is of the
// allocation that it is part of, and ends with that.
const (
	Keep Action = iota
	Free
	FreePart
)

// A Verdict is an action and why.
type Verdict struct {
	Action Action
	Reason string        // for the log
	After  time.Duration // for Keep: when the verdict will be Free if nothing changes; 0 for never
}

// A rule is one row of the table of verdicts.
type rule struct {
	holds  func(v *View, a Allocation) bool
	action Action
	reason string
	// from and grace are for what has to last: the verdict is Keep until grace has passed since from. Then the reason names grace.
	from  func(a Allocation) time.Time
	grace func(v *View) time.Duration
}

// rules are tried in this order; the first that holds decides. If none does the allocation is kept.
var rules = []rule{
	{
		holds:  func(_ *View, a Allocation) bool { return a.Whole == WholeEnded && a.State == Ready },
		action: FreePart, reason: "what it is part of has ended",
	},
	{
		holds:  func(_ *View, a Allocation) bool { return a.Whole == WholeHeld && a.State == Ready },
		action: Keep,
	},
	{ // the caller knows that no call of this process is at work on it
		holds:  func(_ *View, a Allocation) bool { return a.State == Claimed },
		action: Free, reason: "the plugin died while setting it up",
	},
	{
		holds:  func(_ *View, a Allocation) bool { return a.FromEarlierBoot && (a.State == Ready || a.State == Lent) },
		action: Free, reason: "the machine was rebooted",
	},
	{
		holds: func(v *View, a Allocation) bool {
			return v.deleted[endpointID(a.Network, a.Endpoint)] && (a.State == Ready || a.State == Lent)
		},
		action: Free, reason: "the engine deleted it while the ledger could not be written",
	},
	{
		holds:  func(_ *View, a Allocation) bool { return a.State == Ready },
		action: Free, reason: "it was not joined",
		from:  func(a Allocation) time.Time { return a.Since },
		grace: func(v *View) time.Duration { return min(joinGrace, v.homeGrace) },
	},
	{ // it is in a container, or on its way there or back
		holds:  func(_ *View, a Allocation) bool { return a.State == Lent && a.Home.IsZero() },
		action: Keep,
	},
	{ // the engine has not moved the device, or has moved it back and DeleteEndpoint was lost
		holds:  func(_ *View, a Allocation) bool { return a.State == Lent },
		action: Free, reason: "its device was in the host",
		from:  func(a Allocation) time.Time { return a.Home },
		grace: func(v *View) time.Duration { return v.homeGrace },
	},
}

// Verdict decides what to do with an allocation.
func (v *View) Verdict(a Allocation, now time.Time) Verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range rules {
		if !r.holds(v, a) {
			continue
		}
		if r.from == nil {
			return Verdict{Action: r.action, Reason: r.reason}
		}
		grace := v.graceLocked(a, r.grace(v))
		if left := r.from(a).Add(grace).Sub(now); left > 0 {
			return Verdict{After: left}
		}
		return Verdict{Action: r.action, Reason: r.reason + " for " + grace.String()}
	}
	return Verdict{}
}
