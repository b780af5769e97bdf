package pool

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// cooldowns are the addresses of a pool whose leases have ended but that are not free yet: in quarantine, or kept for the container that had
// them. Addresses that another host answers for are among them as conflicts. Any operation takes a few steps in a map or, on average, in a
// queue, however many there are.
type cooldowns struct {
	all  map[netip.Addr]cooldown
	kept map[string][]netip.Addr // by the identity keys of containers
	// The queues are in the order of release, because the cooldown is the same for all addresses of one queue. Entries whose address is not
	// in that cooldown any more are skipped.
	anonymous, reserved []queued // not kept for a container; kept for one
	conflictQueue       []queued
	conflicts           int      // number of conflicts
	keptCount           int      // number of those that are kept for a container
	expiredQueue        []queued // expired, with a record that is still there
}

// cooldown is the cooldown of one address.
type cooldown struct {
	since   time.Time
	rev     int64 // of its record
	keys    []string
	node    string // of the container, in a pool that nodes share; "" for unknown
	expired bool

	conflict bool // another host answers for it; it has no record but that of an earlier cooldown
}

// queued is the place of one address in a queue.
type queued struct {
	addr  netip.Addr
	since time.Time
}

// compare orders a queue: addresses that were released at one time by address, so that the order is the same after a restart.
func (q queued) compare(o queued) int {
	return cmp.Or(q.since.Compare(o.since), q.addr.Compare(o.addr))
}

// add adds a's cooldown, with the revision of its record.
func (c *cooldowns) add(a netip.Addr, l Lease, rev int64) {
	queue := c.load(a, l, rev)
	for i := len(*queue) - 1; i > 0 && queued.compare((*queue)[i-1], (*queue)[i]) > 0; i-- {
		(*queue)[i-1], (*queue)[i] = (*queue)[i], (*queue)[i-1]
	}
	c.compact()
}

// load adds a's cooldown to the end of a queue, which it returns. After the last one the caller has to sort.
func (c *cooldowns) load(a netip.Addr, l Lease, rev int64) *[]queued {
	c.init()
	now := cooldown{since: l.Since, rev: rev, keys: l.identityKeys(), node: l.Node}
	c.all[a] = now
	for _, k := range now.keys {
		c.kept[k] = append(c.kept[k], a)
	}
	queue := &c.anonymous
	if len(now.keys) > 0 {
		queue = &c.reserved
		c.keptCount++
	}
	*queue = append(*queue, queued{a, now.since})
	return queue
}

// addConflict adds an address that another host answers for.
func (c *cooldowns) addConflict(a netip.Addr, now time.Time) {
	c.init()
	rev := c.rev(a)
	c.remove(a)
	c.all[a] = cooldown{since: now, rev: rev, conflict: true}
	c.conflictQueue = append(c.conflictQueue, queued{a, now})
	c.conflicts++
}

// init makes the maps at the first use.
func (c *cooldowns) init() {
	if c.all == nil {
		c.all, c.kept = map[netip.Addr]cooldown{}, map[string][]netip.Addr{}
	}
}

// compact removes outdated queue entries once most are.
func (c *cooldowns) compact() {
	if len(c.anonymous)+len(c.reserved) > 2*len(c.all)+16 {
		c.anonymous, c.reserved = slices.DeleteFunc(c.anonymous, c.outdated), slices.DeleteFunc(c.reserved, c.outdated)
	}
}

// outdated returns true for a queue entry to be skipped.
func (c *cooldowns) outdated(q queued) bool {
	now, ok := c.all[q.addr]
	return !ok || !now.since.Equal(q.since)
}

// sort orders the queues after they were filled from the store, which is in the order of addresses.
func (c *cooldowns) sort() {
	slices.SortFunc(c.anonymous, queued.compare)
	slices.SortFunc(c.reserved, queued.compare)
}

// count returns how many released addresses are in a cooldown that has not expired, of those that are allocatable.
func (c *cooldowns) count(allocatable func(netip.Addr) bool) (n int) {
	for a, now := range c.all {
		if !now.expired && !now.conflict && allocatable(a) {
			n++
		}
	}
	return n
}

// rev returns the revision of the record of a's cooldown, 0 for none.
func (c *cooldowns) rev(a netip.Addr) int64 { return c.all[a].rev }

// has returns true if a is in cooldown, or was and has a record of it.
func (c *cooldowns) has(a netip.Addr) bool {
	_, ok := c.all[a]
	return ok
}

// remove removes a's cooldown.
func (c *cooldowns) remove(a netip.Addr) {
	c.unkeep(a)
	switch now := c.all[a]; {
	case now.expired:
	case now.conflict:
		c.conflicts--
	case len(now.keys) > 0:
		c.keptCount--
	}
	delete(c.all, a)
}

// unkeep ends the reservation of a for a container.
func (c *cooldowns) unkeep(a netip.Addr) {
	for _, k := range c.all[a].keys {
		left := slices.DeleteFunc(c.kept[k], func(b netip.Addr) bool { return a == b })
		if c.kept[k] = left; len(left) == 0 {
			delete(c.kept, k)
		}
	}
}

// keptFor returns the address that is kept for a container of a node with these identity keys: the one that it had last. node is "" in a pool
// that nodes do not share. On another node a container of that name is another container, unless the name is unique in a swarm.
func (c *cooldowns) keptFor(keys []string, node string) (last netip.Addr, ok bool) {
	for _, k := range keys {
		for _, a := range c.kept[k] {
			of := c.all[a].node
			if of != "" && of != node && strings.HasPrefix(k, nameKey) {
				continue
			}
			if !ok || cmp.Or(c.all[a].since.Compare(c.all[last].since), a.Compare(last)) > 0 {
				last, ok = a, true
			}
		}
		if ok {
			return last, true
		}
	}
	return netip.Addr{}, false
}

// expire expires the cooldowns that have lasted long enough, and calls free with each address. If more than keptMax are kept for containers, it
// expires the oldest of them, too, after their quarantine.
func (c *cooldowns) expire(now time.Time, quarantine, sticky time.Duration, keptMax int, free func(netip.Addr)) {
	expire := func(queue []queued, after time.Duration) []queued {
		over := func(q queued) bool {
			past := now.Sub(q.since)
			return isOver(past, after) || c.keptCount > keptMax && len(c.all[q.addr].keys) > 0 && isOver(past, quarantine)
		}
		for len(queue) > 0 && (c.outdated(queue[0]) || over(queue[0])) {
			// An address may be in the queue twice, if it was released twice at one time.
			if q, cd := queue[0], c.all[queue[0].addr]; !c.outdated(q) && !cd.expired {
				free(q.addr)
				c.unkeep(q.addr)
				cd.expired = true
				switch {
				case cd.conflict:
					c.conflicts--
				case len(cd.keys) > 0:
					c.keptCount--
				}
				c.all[q.addr] = cd
				c.expiredQueue = append(c.expiredQueue, q)
			}
			queue = queue[1:]
		}
		return queue
	}
	c.anonymous = expire(c.anonymous, quarantine)
	c.reserved = expire(c.reserved, max(quarantine, sticky))
	c.conflictQueue = expire(c.conflictQueue, conflictTime)
}

// isOver returns true if a cooldown that began so long ago is over. One that begins far in the future is over, too: the clock was set back
// since.
func isOver(past, after time.Duration) bool { return past >= after || past < -after }

// removeAtOnce is how many records of expired cooldowns are removed with one transaction. Each release makes one, and each allocation has a
// transaction, so that any number above 1 keeps up.
const removeAtOnce = 16

// expired returns some of the addresses whose cooldown has expired and whose record can be removed, but not a.
func (c *cooldowns) expired(a netip.Addr) []netip.Addr {
	for len(c.expiredQueue) > 0 && c.outdated(c.expiredQueue[0]) {
		c.expiredQueue = c.expiredQueue[1:]
	}
	var some []netip.Addr
	for _, q := range c.expiredQueue[:min(len(c.expiredQueue), removeAtOnce)] {
		if !c.outdated(q) && c.all[q.addr].expired && q.addr != a {
			some = append(some, q.addr)
		}
	}
	return some
}

// oldestKept returns the address that was kept longest for a container, of those that were released before a time and are allocatable.
func (c *cooldowns) oldestKept(before time.Time, allocatable func(netip.Addr) bool) (netip.Addr, bool) {
	for _, q := range c.reserved {
		if !c.outdated(q) && !q.since.After(before) && allocatable(q.addr) {
			return q.addr, true
		}
	}
	return netip.Addr{}, false
}
