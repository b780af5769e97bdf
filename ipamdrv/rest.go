package ipamdrv

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// rests are the addresses of a pool whose leases have ended, but that are not free yet: in quarantine, or kept for whom
// they were leased to. Any operation takes a few steps in a map or, on average, in a queue, however many there are.
type rests struct {
	all   map[netip.Addr]rest
	owner map[string][]netip.Addr // what is kept for whom
	// The queues are in the order of release, because every address in one of them rests for the same time. An entry whose
	// address is not at rest since then any more is passed over.
	plain, kept []queued
	strangers   []queued // those that others have
	strange     int      // how many these are, without the entries to be passed over
	over        []queued // those whose time is over and whose record is still there
	ended       int      // how many these are, without the entries to be passed over
}

// rest is one address at rest.
type rest struct {
	since  time.Time
	rev    int64 // of its record
	owners []string
	ended  bool // its time is over

	stranger bool // somebody outside has it; it has no record but that of an earlier rest
}

// queued is one address's place in a queue.
type queued struct {
	addr  netip.Addr
	since time.Time
}

// task is the name of a swarm task: service, slot or node, and an ID that is new with every task (swarmkit, api/naming).
var task = regexp.MustCompile(`^(.+\.[^.]+)\.[a-z0-9]{25}$`)

// owners are the marks by which the holder of a lease is known again, the best first.
func (l leaseRecord) owners() []string {
	var marks []string
	if l.Name != "" {
		marks = append(marks, "name "+task.ReplaceAllString(l.Name, "$1"))
	}
	if l.MAC != "" {
		marks = append(marks, "mac "+l.MAC)
	}
	return marks
}

// add notes that a rests, with the revision of its record.
func (r *rests) add(a netip.Addr, l leaseRecord, rev int64) {
	if r.all == nil {
		r.all, r.owner = map[netip.Addr]rest{}, map[string][]netip.Addr{}
	}
	now := rest{since: l.Since, rev: rev, owners: l.owners()}
	r.all[a] = now
	for _, o := range now.owners {
		r.owner[o] = append(r.owner[o], a)
	}
	if len(now.owners) == 0 {
		r.plain = append(r.plain, queued{a, now.since})
	} else {
		r.kept = append(r.kept, queued{a, now.since})
	}
	r.compact()
}

// addStranger notes that somebody outside has a.
func (r *rests) addStranger(a netip.Addr, now time.Time) {
	if r.all == nil {
		r.all, r.owner = map[netip.Addr]rest{}, map[string][]netip.Addr{}
	}
	rev := r.rev(a)
	r.remove(a)
	r.all[a] = rest{since: now, rev: rev, stranger: true}
	r.strangers = append(r.strangers, queued{a, now})
	r.strange++
}

// compact drops entries that are to be passed over once they are the most.
func (r *rests) compact() {
	if len(r.plain)+len(r.kept) > 2*len(r.all)+16 {
		r.plain, r.kept = slices.DeleteFunc(r.plain, r.outdated), slices.DeleteFunc(r.kept, r.outdated)
	}
}

// outdated says whether an entry is to be passed over.
func (r *rests) outdated(q queued) bool {
	at, ok := r.all[q.addr]
	return !ok || !at.since.Equal(q.since)
}

// sort puts the queues in order after they were filled from the ledger, which is in the order of addresses.
func (r *rests) sort() {
	order := func(a, b queued) int { return cmp.Or(a.since.Compare(b.since), a.addr.Compare(b.addr)) }
	slices.SortFunc(r.plain, order)
	slices.SortFunc(r.kept, order)
}

// len is how many rest and are not free yet.
func (r *rests) len() int { return len(r.all) - r.ended }

// rev is the revision of the record of a, 0 when it does not rest.
func (r *rests) rev(a netip.Addr) int64 { return r.all[a].rev }

// remove notes that a has no such record any more.
func (r *rests) remove(a netip.Addr) {
	r.disown(a)
	switch at := r.all[a]; {
	case at.ended:
		r.ended--
	case at.stranger:
		r.strange--
	}
	delete(r.all, a)
}

// disown forgets for whom a was kept.
func (r *rests) disown(a netip.Addr) {
	for _, o := range r.all[a].owners {
		left := slices.DeleteFunc(r.owner[o], func(b netip.Addr) bool { return a == b })
		if r.owner[o] = left; len(left) == 0 {
			delete(r.owner, o)
		}
	}
}

// of is the address that is kept for one with these marks: the one that he had last.
func (r *rests) of(marks []string) (netip.Addr, bool) {
	for _, m := range marks {
		if had := r.owner[m]; len(had) > 0 {
			return slices.MaxFunc(had, func(a, b netip.Addr) int {
				return cmp.Or(r.all[a].since.Compare(r.all[b].since), a.Compare(b))
			}), true
		}
	}
	return netip.Addr{}, false
}

// expire ends the rest of those that were released long enough ago, and calls free with each.
func (r *rests) expire(now time.Time, quarantine, sticky time.Duration, free func(netip.Addr)) {
	end := func(queue []queued, after time.Duration) []queued {
		for len(queue) > 0 && (r.outdated(queue[0]) || now.Sub(queue[0].since) >= after) {
			// An address may be there twice, released twice at one time.
			if q, at := queue[0], r.all[queue[0].addr]; !r.outdated(q) && !at.ended {
				free(q.addr)
				r.disown(q.addr)
				at.ended = true
				if at.stranger {
					r.strange--
				}
				r.all[q.addr] = at
				r.ended++
				r.over = append(r.over, q)
			}
			queue = queue[1:]
		}
		return queue
	}
	r.plain = end(r.plain, quarantine)
	r.kept = end(r.kept, max(quarantine, sticky))
	r.strangers = end(r.strangers, strangerTime)
}

// forgettable is how many records of addresses whose rest is over go with one transaction. One is made per release and
// there is a transaction per choice, so that any number above 1 keeps up.
const forgettable = 16

// forget lists some of the addresses whose rest is over and whose record can go, but not a.
func (r *rests) forget(a netip.Addr) []netip.Addr {
	for len(r.over) > 0 && r.outdated(r.over[0]) {
		r.over = r.over[1:]
	}
	var some []netip.Addr
	for _, q := range r.over[:min(len(r.over), forgettable)] {
		if !r.outdated(q) && q.addr != a {
			some = append(some, q.addr)
		}
	}
	return some
}

// oldestKept is the one that is kept for somebody for longest, of those that were released before and that may be chosen.
func (r *rests) oldestKept(before time.Time, choosable func(netip.Addr) bool) (netip.Addr, bool) {
	for _, q := range r.kept {
		if !r.outdated(q) && !q.since.After(before) && choosable(q.addr) {
			return q.addr, true
		}
	}
	return netip.Addr{}, false
}
