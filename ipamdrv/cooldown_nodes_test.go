package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// askFor requests an exact address.
func (n *clusterNode) askFor(pool, addr string) error {
	_, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: pool, Address: addr})
	return err
}

// afterCooldown returns two nodes that share a pool, and an address whose cooldown is over. Both nodes have its record in their cache.
func afterCooldown(t *testing.T, shared store.Store) (a, b *clusterNode, pa, pb, addr string) {
	t.Helper()
	const subnet, shares, rests = "10.0.0.0/28", "pool=lan", "quarantine=10s"
	a, b = newNode(t, shared), newNode(t, shared)
	pa = a.pool(subnet, shares, rests)
	addr = a.get(pa)
	a.release(pa, addr)
	pb = b.pool(subnet, shares, rests)
	wait(11 * time.Second)
	return a, b, pa, pb, addr
}

// TestCooldownEndedByOtherNode: the cooldown of an address is over and another node has leased it. It stays leased: this node must not
// remove the record, which is the lease now.
func TestCooldownEndedByOtherNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, addr := afterCooldown(t, far)
		if err := a.askFor(pa, addr); err != nil {
			t.Fatal(err)
		}
		other := b.get(pb)
		wantHeld(t, under, "after the other node's choice", addr, other)
		if err := b.askFor(pb, addr); !errors.Is(err, ipamdrv.ErrInUse) {
			t.Errorf("given to another node, too: %v", err)
		}
		for range 11 { // one of 14 is kept for a router until no other is left
			other = b.get(pb)
			if other == addr {
				t.Errorf("%s was given twice", addr)
			}
		}
		if _, err := b.ask(pb); !errors.Is(err, ipamdrv.ErrFull) {
			t.Errorf("all are given: %v, want full", err)
		}
	})
}

// TestCooldownRemovedByOtherNode: an address whose cooldown record another node has removed can be requested and allocated.
func TestCooldownRemovedByOtherNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, addr := afterCooldown(t, far)
		held := []string{a.get(pa), a.get(pa)}
		if err := b.askFor(pb, addr); err != nil {
			t.Errorf("asked for: %v", err)
		}
		wantHeld(t, under, "asked for", append(held, addr)...)
	})
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, _ := afterCooldown(t, far)
		a.get(pa)
		a.get(pa)
		for range 11 {
			b.get(pb)
		}
		if got := held(t, under); len(got) != 13 {
			t.Errorf("held are %v, want all but the router's", got)
		}
	})
}

// TestCooldownOfOtherClock: a node whose clock is wrong releases an address. For the others the cooldown begins when they are told of it, and
// for one that was off at most clockSkew after the time that it says.
func TestCooldownOfOtherClock(t *testing.T) {
	for _, skew := range []time.Duration{-time.Minute, time.Minute, time.Hour} {
		clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
			a, b := newNode(t, far), newNode(t, far)
			pa := a.pool("10.0.0.0/30", "pool=lan", "quarantine=30s")
			pb := b.pool("10.0.0.0/30", "pool=lan", "quarantine=30s")
			held := []string{a.get(pa), a.get(pa)}
			id := keys(t, under, "ipam/pool/")[0]
			rec := fmt.Appendf(nil, `{"v":1,"kind":"resting","since":%q}`, time.Now().Add(skew).UTC().Format(time.RFC3339))
			if _, err := under.Txn(t.Context(), nil, []store.Op{store.Put("ipam/lease/"+id+"/"+held[0], rec)}); err != nil {
				t.Fatal(err)
			}
			wait(29 * time.Second)
			if got, err := b.ask(pb); !errors.Is(err, ipamdrv.ErrFull) {
				t.Errorf("skew %v: given %s after 29 s, %v", skew, got, err)
			}
			wait(2 * time.Second)
			if got, err := b.ask(pb); err != nil || got != held[0] {
				t.Errorf("skew %v: given %s after 31 s, %v", skew, got, err)
			}
		})
	}
}
