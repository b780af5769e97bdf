package ipamdrv

import (
	"time"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// This file decides whether the engine still knows a handle or a lease. Nothing is released because a record is missing: only because the
// network driver of this node, which saw the network, does not have it any more.

const (
	// gracePeriod is how old a lease must be, and how long it must have had no endpoint, before it is released. There are milliseconds
	// between the requests for an address and for its endpoint.
	gracePeriod = 10 * time.Minute
	// gracePeriodAfterStart is that of a lease from before the last start of the engine or of this process, when calls can get lost. All
	// calls of before are over: an engine retries for 30 seconds to reach a plugin that is being restarted, with each of the two requests
	// for an address and the one for the endpoint.
	gracePeriodAfterStart = 3 * time.Minute
)

// graceOf returns the grace period of a lease, or of a handle if lease is nil.
func graceOf(lease *pool.Lease, lastStart time.Time) time.Duration {
	if lease != nil && lease.Since.Before(lastStart) {
		return gracePeriodAfterStart
	}
	return gracePeriod
}

// handleFacts are what is known of a handle.
type handleFacts struct {
	bound         bool // it is known which network has it
	networkExists bool // in the network driver
	replaced      bool // the network has a newer handle of the same subnet
	leases        int  // of containers
}

// A verdict says what garbage collection does with a handle or a lease.
type verdict string

// Verdicts. Suspects are released after their grace period.
const (
	keepUnbound      verdict = "keep: it may be another network driver's"
	keepUsed         verdict = "keep: its network has it"
	keepLeases       verdict = "keep: its containers may still have endpoints"
	suspectNoNetwork verdict = "suspect: no network has it"
	suspectReplaced  verdict = "suspect: its network has a newer pool"

	keepNoContainer   verdict = "keep: it is not a container's"
	keepLent          verdict = "keep: it is not known which network has it"
	keepEndpoint      verdict = "keep: an endpoint has it"
	keepYoung         verdict = "keep: its endpoint may be being created"
	suspectNoEndpoint verdict = "suspect: no endpoint has it"
)

// suspect returns true for the verdicts that lead to a release.
func (v verdict) suspect() bool {
	return v == suspectNoNetwork || v == suspectReplaced || v == suspectNoEndpoint
}

// judgeHandle decides about a handle.
func judgeHandle(f handleFacts) verdict {
	switch {
	case !f.bound:
		return keepUnbound
	case !f.networkExists:
		return suspectNoNetwork
	case !f.replaced:
		return keepUsed
	case f.leases > 0:
		return keepLeases
	}
	return suspectReplaced
}

// leaseFacts are what is known of a lease of a handle whose network exists.
type leaseFacts struct {
	userKnown   bool // it is known whose container has it: a pool may have given it in place of another network's
	hasEndpoint bool // in the network driver
	age, grace  time.Duration
}

// judgeLease decides about a lease of a handle whose network exists.
func judgeLease(l pool.Lease, f leaseFacts) verdict {
	switch {
	case !l.OfContainer():
		return keepNoContainer
	case f.hasEndpoint:
		return keepEndpoint
	case !f.userKnown:
		return keepLent
	case f.age < f.grace:
		return keepYoung
	}
	return suspectNoEndpoint
}
