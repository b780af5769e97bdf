package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

func TestReuseImmediately(t *testing.T) {
	withPool(t, "10.99.0.0/24", "", []string{"reuse=immediate"}, func(f *fixture) {
		for range 3 {
			f.gives(pool.Any, "", "", "10.99.0.2/24")
			f.gives(pool.Any, "", "", "10.99.0.3/24")
			f.release("10.99.0.2")
			f.gives(pool.Any, "", "", "10.99.0.2/24")
			f.release("10.99.0.3")
			f.release("10.99.0.2")
			f.restart()
		}
	})
}

// TestQuarantine: a released address is not allocated before its cooldown is over, also after a restart. A container can request it.
func TestQuarantine(t *testing.T) {
	withPool(t, "10.99.0.0/30", "", []string{"quarantine=30s"}, func(f *fixture) {
		f.gives(pool.Any, "", "", "10.99.0.1/30")
		f.gives(pool.Any, "", "", "10.99.0.2/30")
		f.release("10.99.0.1")
		f.release("10.99.0.1")
		full := "all 2 addresses are taken, 1 of them in quarantine; " +
			"remove a container, or create the network with a larger --subnet"
		f.refuses(pool.Any, "", pool.ErrFull, full)
		f.gives(pool.Exact, "10.99.0.1", "", "10.99.0.1/30")
		f.release("10.99.0.1")
		f.after(30*time.Second - time.Nanosecond)
		f.restart()
		f.refuses(pool.Any, "", pool.ErrFull, full)
		f.after(time.Nanosecond)
		f.gives(pool.Any, "", "", "10.99.0.1/30")
	})
}

// TestExpiredCooldownsRemoved: allocations remove the records of expired cooldowns, however many there are.
func TestExpiredCooldownsRemoved(t *testing.T) {
	withPool(t, "10.99.0.0/24", "", []string{"quarantine=1s"}, func(f *fixture) {
		for i := range 200 {
			f.gives(pool.Any, "", "", fmt.Sprintf("10.99.0.%d/24", i+2))
		}
		for i := range 200 {
			f.release(fmt.Sprintf("10.99.0.%d", i+2))
		}
		f.after(time.Second)
		for range 15 { // each removes up to 16 records
			if _, err := f.request(pool.Any, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		if left := f.leases(); len(left) != 15 {
			t.Errorf("15 are leased, and there are %d records", len(left))
		}
	})
}

// TestStickyGivenWhenFull: an address that is kept for a container is given to another one if no other is left, the one that was released
// first. One in quarantine is not.
func TestStickyGivenWhenFull(t *testing.T) {
	withPool(t, "10.99.0.0/29", "", []string{"sticky=1h", "quarantine=10s"}, func(f *fixture) {
		for i, name := range []string{"c0", "c1", "c2", "c3", "c4"} {
			f.gives(pool.Any, "", name, fmt.Sprintf("10.99.0.%d/29", i+2))
		}
		for _, a := range []string{"10.99.0.5", "10.99.0.3", "10.99.0.6"} {
			f.release(a)
			f.after(4 * time.Second)
		}
		f.refuses(pool.Exact, "10.99.0.2", pool.ErrInUse, "in use since "+
			`2000-01-01 00:00:00 UTC by container "c0"`)
		f.gives(pool.Any, "", "new", "10.99.0.5/29")
		f.refuses(pool.Any, "", pool.ErrFull, "all 5 addresses are taken, "+
			"2 of them in quarantine; remove a container, or create the network with a larger --subnet; "+
			"10.99.0.1 is kept for a router, a container can have it with --ip")
		f.gives(pool.Any, "", "c4", "10.99.0.6/29") // the one that is kept for c4
		f.after(10 * time.Second)
		f.gives(pool.Any, "", "newer", "10.99.0.3/29")
	})
}

// TestReleasedAtOneTime: of addresses that were released at one time the lowest is given first, whatever the order of the calls, and also after
// a restart.
func TestReleasedAtOneTime(t *testing.T) {
	for _, restart := range []bool{false, true} {
		withPool(t, "10.99.0.0/29", "", []string{"sticky=1h"}, func(f *fixture) {
			for i, name := range []string{"c0", "c1", "c2", "c3", "c4"} {
				f.gives(pool.Any, "", name, fmt.Sprintf("10.99.0.%d/29", i+2))
			}
			for _, a := range []string{"10.99.0.5", "10.99.0.3", "10.99.0.6"} {
				f.release(a)
			}
			if restart {
				f.restart()
			}
			for _, want := range []string{"10.99.0.3/29", "10.99.0.5/29", "10.99.0.6/29"} {
				f.gives(pool.Any, "", "new", want)
			}
		})
	}
}

// TestCooldownFromTheFuture: a cooldown that was written while the clock was wrong ends.
func TestCooldownFromTheFuture(t *testing.T) {
	withPool(t, "10.99.0.0/30", "", []string{"quarantine=1h"}, func(f *fixture) {
		for addr, since := range map[string]string{"10.99.0.1": "2000-01-01T00:30:00Z", "10.99.0.2": "2001-01-01T00:00:00Z"} {
			op := store.Put("ipam/lease/"+f.h.ID+"/"+addr, []byte(`{"v":1,"kind":"resting","since":"`+since+`"}`))
			if _, err := f.store.Txn(f.Context(), nil, []store.Op{op}); err != nil {
				t.Fatal(err)
			}
		}
		f.after(90*time.Minute - time.Second)
		f.refuses(pool.Any, "", pool.ErrFull, "all 2 addresses are taken, 2 of them in "+
			"quarantine; remove a container, or create the network with a larger --subnet")
		f.after(time.Second)
		f.gives(pool.Any, "", "", "10.99.0.1/30")
		f.gives(pool.Any, "", "", "10.99.0.2/30")
	})
}

// TestKeptAtMost: containers that run once, each under a name of its own, do not leave any number of addresses that are kept for them by default.
// The oldest are free then, and their records are removed. With the option sticky each is kept, as the user said.
func TestKeptAtMost(t *testing.T) {
	const most, more = 4096, 200
	for _, option := range []string{"reuse=last", "sticky=24h"} {
		withPool(t, "10.0.0.0/16", "", []string{option}, func(f *fixture) {
			for i := range most + more {
				got, err := f.request(pool.Any, "", fmt.Sprintf("run%d", i))
				f.must(err)
				f.release(strings.TrimSuffix(got, "/16"))
				f.after(100 * time.Millisecond)
			}
			left := len(f.leases())
			if limited := left <= most+2; limited != (option == "reuse=last") {
				t.Errorf("%s: the ledger has %d records", option, left)
			}
			last, first := fmt.Sprintf("run%d", most+more-1), "run0"
			f.gives(pool.Any, "", last, "10.0.16.201/16")
			if option == "reuse=last" {
				f.gives(pool.Any, "", first, "10.0.16.202/16")
			} else {
				f.gives(pool.Any, "", first, "10.0.0.2/16")
			}
		})
	}
}

// TestFullErrorCounts: an address that is kept for a container and cannot be allocated, since it is outside of the range, is none of those that
// the error counts.
func TestFullErrorCounts(t *testing.T) {
	withPool(t, "10.99.0.0/24", "10.99.0.64/31", nil, func(f *fixture) {
		f.gives(pool.Exact, "10.99.0.9", "out", "10.99.0.9/24")
		f.release("10.99.0.9")
		f.gives(pool.Any, "", "a", "10.99.0.64/24")
		f.gives(pool.Any, "", "b", "10.99.0.65/24")
		f.refuses(pool.Any, "", pool.ErrFull, "all 2 addresses of ip-range 10.99.0.64/31 are in use; "+
			"remove a container, or create the network with a larger --ip-range")
	})
}

// fullStore refuses all writes but deletes.
type fullStore struct{ *store.Memory }

func (s fullStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	for _, op := range then {
		if op.Value != nil {
			return store.Result{}, fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrNoSpace)
		}
	}
	return s.Memory.Txn(ctx, conds, then)
}

// TestReleaseWithoutSpace: a store that is out of space still deletes. So an address is released there, although it cannot be kept for its
// container, unless the user asked for that.
func TestReleaseWithoutSpace(t *testing.T) {
	for option, released := range map[string]bool{"reuse=last": true, "sticky=24h": false, "quarantine=1m": false} {
		withPool(t, "10.99.0.0/24", "", []string{option}, func(f *fixture) {
			f.gives(pool.Any, "", "web", "10.99.0.2/24")
			full := pool.New(f.h.ID, pool.Ledger{Store: fullStore{f.store}}, nil)
			got, err := full.Release(f.Context(), netip.MustParseAddr("10.99.0.2"), pool.Released{At: time.Now()})
			if got != released || (err == nil) != released || err != nil && !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("%s: released %v, %v", option, got, err)
			}
			if left := len(f.leases()); left > 0 == released {
				t.Errorf("%s: %d records are left", option, left)
			}
			f.restart()
			f.must(f.p.Load(f.Context()))
		})
	}
}
