package ipamdrv_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// askFor asks for a certain address.
func (n *clusterNode) askFor(pool, addr string) error {
	_, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: pool, Address: addr})
	return err
}

// rested are two nodes with a pool in which one address has rested long enough, which both of them know.
func rested(t *testing.T, shared store.Store) (a, b *clusterNode, pa, pb, addr string) {
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

// An address that has rested, and that another node has given since, stays that one's: the record of its rest went with the
// lease, which no choice elsewhere removes.
func TestRestThatAnotherNodeGave(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, addr := rested(t, far)
		if err := a.askFor(pa, addr); err != nil {
			t.Fatal(err)
		}
		other := b.get(pb)
		wantHeld(t, under, "after the other node's choice", addr, other)
		if err := b.askFor(pb, addr); !errors.Is(err, ipamdrv.ErrInUse) {
			t.Errorf("given to another node, too: %v", err)
		}
		for range 11 { // of 14 one is kept for a router, until nothing else is left
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

// An address whose rest another node has forgotten can be had: by who asks for it, and by choice.
func TestRestThatAnotherNodeForgot(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, addr := rested(t, far)
		held := []string{a.get(pa), a.get(pa)}
		if err := b.askFor(pb, addr); err != nil {
			t.Errorf("asked for: %v", err)
		}
		wantHeld(t, under, "asked for", append(held, addr)...)
	})
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b, pa, pb, _ := rested(t, far)
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
