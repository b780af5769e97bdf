package engineview

import (
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
)

// An Allocation has the facts about an allocation while no call is at work on it.
type Allocation struct {
	Network, Endpoint string
	State             alloc.State
	Since             time.Time // when it got into its state
	FromEarlierBoot   bool
	// Home is since when its device is seen in the host without a break; zero if it is not there. It matters for alloc.Lent only.
	Home time.Time
	// Used: the device has had carrier since it was lent. It is lent while it is down, so that was in a container: it has come back.
	Used bool
	// Remade: its driver has made another netdev of the device since it was lent, and that is in the host. The container has lost its own, and
	// has not ended for that.
	Remade bool
	Whole  Whole
	Owner  Owner
}

// An Owner is what is known of an endpoint's owner that is not an engine: it makes no calls from which anything follows.
type Owner int

// What is known of an owner.
const (
	NoOwner       Owner = iota // an engine has it
	NamespaceHeld              // the network namespace that the device was requested for may be there, or the device in it
	NamespaceLeft              // that namespace is gone, or another one has its place, and the device is not in it
)

// Whole is the state of the allocation that another one is part of, as a port's is of a bond's.
type Whole int

// The states of a whole.
const (
	NoWhole    Whole = iota // the allocation is not part of another
	WholeHeld               // it is not free yet
	WholeEnded              // it is gone
)

// An Action is what to do with an allocation.
type Action int

// The actions.
const (
	Keep     Action = iota // leave it as it is
	Free                   // free its device, and remove its endpoint
	FreePart               // free its device; its whole's end has removed the endpoint
)

// A Verdict is an action and why.
type Verdict struct {
	Action Action
	Reason string        // for the log
	After  time.Duration // for Keep: when the verdict will be Free if nothing changes; 0 for never
	Waited bool          // for Free: a grace period has passed, in which the engine could have made its calls
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
		holds:  func(_ *View, a Allocation) bool { return a.Whole == WholeEnded && a.State == alloc.Ready },
		action: FreePart, reason: "what it is part of has ended",
	},
	{ // a part ends after its whole, also if the process died while it set both up
		holds:  func(_ *View, a Allocation) bool { return a.Whole == WholeHeld },
		action: Keep,
	},
	{ // the caller knows that no call of this process is at work on it
		holds:  func(_ *View, a Allocation) bool { return a.State == alloc.Claimed },
		action: Free, reason: "the plugin died while setting it up",
	},
	{
		holds: func(_ *View, a Allocation) bool {
			return a.FromEarlierBoot && (a.State == alloc.Ready || a.State == alloc.Lent)
		},
		action: Free, reason: "the machine was rebooted",
	},
	{
		holds: func(v *View, a Allocation) bool {
			return v.deleted[endpointID(a.Network, a.Endpoint)] && (a.State == alloc.Ready || a.State == alloc.Lent)
		},
		action: Free, reason: "the engine deleted it while the ledger could not be written",
	},
	{
		holds: func(_ *View, a Allocation) bool {
			return a.Owner == NamespaceLeft && (a.State == alloc.Ready || a.State == alloc.Lent)
		},
		action: Free, reason: "its network namespace is gone",
	},
	{ // an owner that is slow is not judged by time
		holds:  func(_ *View, a Allocation) bool { return a.Owner != NoOwner },
		action: Keep,
	},
	{
		holds:  func(_ *View, a Allocation) bool { return a.State == alloc.Ready },
		action: Free, reason: "it was not joined",
		from:  func(a Allocation) time.Time { return a.Since },
		grace: func(v *View) time.Duration { return min(joinGrace, v.homeGrace) },
	},
	{ // it is in a container, or on its way there or back
		holds:  func(_ *View, a Allocation) bool { return a.State == alloc.Lent && a.Home.IsZero() },
		action: Keep,
	},
	{ // an engine that was not restarted since still has the endpoint, with its addresses
		holds:  func(v *View, a Allocation) bool { return a.State == alloc.Lent && a.Remade && !v.suspectLocked(a) },
		action: Keep,
	},
	{ // DeleteEndpoint was lost
		holds:  func(_ *View, a Allocation) bool { return a.State == alloc.Lent && a.Used },
		action: Free, reason: "its device has come back from a container, and was in the host",
		from:  func(a Allocation) time.Time { return a.Home },
		grace: func(v *View) time.Duration { return min(usedGrace, v.homeGrace) },
	},
	{ // the engine has not moved the device, or has moved it back and DeleteEndpoint was lost
		holds:  func(_ *View, a Allocation) bool { return a.State == alloc.Lent },
		action: Free, reason: "its device was in the host",
		from:  func(a Allocation) time.Time { return a.Home },
		grace: func(v *View) time.Duration { return v.homeGrace },
	},
}

// Verdict decides what to do with an allocation.
func (v *View) Verdict(a Allocation, now time.Time) Verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	verdict := v.verdictLocked(a, now)
	v.noteLocked(a, now, verdict.After)
	return verdict
}

func (v *View) verdictLocked(a Allocation, now time.Time) Verdict {
	for _, r := range rules {
		if !r.holds(v, a) {
			continue
		}
		if r.from == nil {
			return Verdict{Action: r.action, Reason: r.reason}
		}
		deadline, grace := v.deadlineLocked(a, r.from(a), r.grace(v))
		if left := deadline.Sub(now); left > 0 {
			return Verdict{After: left}
		}
		return Verdict{Action: r.action, Reason: r.reason + " for " + grace.String(), Waited: true}
	}
	return Verdict{}
}
