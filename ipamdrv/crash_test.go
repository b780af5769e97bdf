package ipamdrv_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/storetest"
)

// engineState is what the engine knows: the answers that it got, and the calls that were not answered.
type engineState struct {
	options map[string]string // of the pool
	pool    string            // "" before RequestPool is answered
	has     map[string]bool   // addresses that it was given and has not released
	unsure  map[string]bool   // addresses whose release was not answered
	dropped bool              // ReleasePool was answered
	errs    []error           // of the calls that failed
	d       *ipamdrv.Driver   // on the store that may crash
	names   map[string]string // address by its name in the scenario
}

// request requests an address and records the answer.
func (p *engineState) request(name, addr string, options map[string]string) {
	r, err := p.d.RequestAddress(context.Background(),
		&ipam.RequestAddressRequest{PoolID: p.pool, Address: addr, Options: options})
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	got := netip.MustParsePrefix(r.Address).Addr().String()
	p.has[got], p.names[name] = true, got
}

// release releases the address that was given under name.
func (p *engineState) release(name string) {
	addr, ok := p.names[name]
	if !ok {
		return // the engine releases only what it was given
	}
	delete(p.has, addr)
	_, err := p.d.ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: p.pool, Address: addr})
	if err != nil {
		p.unsure[addr] = true
		p.errs = append(p.errs, err)
	}
}

// life is the scenario: a network with a gateway and an auxiliary address, containers that come and go, and its end.
func (p *engineState) life() {
	r, err := p.d.RequestPool(context.Background(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/29", Options: p.options})
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	p.pool = r.PoolID
	p.request("gateway", "", asGateway)
	p.request("aux", "10.99.0.6", nil)
	p.request("a", "", nil)
	p.request("b", "", named)
	p.release("a")
	p.request("c", "10.99.0.5", nil)
	p.request("d", "", nil)
	p.release("c")
	p.release("b")
	p.release("d")
	p.release("gateway")
	p.release("aux")
	_, err = p.d.ReleasePool(context.Background(), &ipam.ReleasePoolRequest{PoolID: p.pool})
	p.dropped = err == nil
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// TestCrashAtStepK kills the driver at each of its transactions, on a bbolt ledger. A new driver has each address that was answered and
// gives it to no other container; at most one address per crash is leased without an answer.
func TestCrashAtStepK(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		for name, options := range map[string]map[string]string{
			"private": nil, "shared": {"pool": "lan"}, "sticky": {"sticky": "1h"}, "gateway": {"gateway": "10.99.0.1"},
		} {
			t.Run(fate.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				crashAtEveryStep(t, fate, options)
			})
		}
	}
}

// crashAtEveryStep runs the scenario and kills the driver at each transaction.
func crashAtEveryStep(t *testing.T, fate storetest.Fate, options map[string]string) {
	for k := 1; ; k++ {
		if k > 100 {
			t.Fatal("the scenario does not end")
		}
		path := filepath.Join(t.TempDir(), "ledger.db")
		s := openLedger(t, path)
		crash := storetest.NewCrash(s, k, fate)
		p := &engineState{options: options, d: newDriver(t, crash), has: map[string]bool{}, unsure: map[string]bool{},
			names: map[string]string{}}
		p.life()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !crash.Dead() {
			if len(p.errs) > 0 || k < 10 {
				t.Fatalf("the scenario without a crash, of %d transactions: %v", k-1, p.errs)
			}
			return
		}
		if len(p.errs) == 0 {
			t.Errorf("crash at %d: every call succeeded", k)
		}
		p.afterCrash(t, k, openLedger(t, path))
	}
}

// openLedger opens a bbolt ledger.
func openLedger(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// afterCrash checks a new driver on the ledger.
func (p *engineState) afterCrash(t *testing.T, k int, s store.Store) {
	t.Helper()
	defer s.Close()
	p.d = newDriver(t, s)
	if p.pool == "" || p.dropped {
		checkInvariants(t, p.d, s)
		if p.dropped && len(keys(t, s, "")) > 0 {
			t.Errorf("crash at %d: the pool was released, and the ledger has %q", k, keys(t, s, ""))
		}
		return
	}
	p.checkHeld(t, k, s)
	if len(pools(t, s)) > 0 {
		p.finish(t, k, s)
	}
}

// checkHeld compares the ledger with the state of the engine.
func (p *engineState) checkHeld(t *testing.T, k int, s store.Store) {
	t.Helper()
	held := p.held(t, s)
	unknown := 0
	for _, addr := range held {
		if !p.has[addr] && !p.unsure[addr] {
			unknown++
		}
	}
	if unknown > 1 {
		t.Errorf("crash at %d: the ledger has %q, the engine only %v", k, held, p.has)
	}
	if len(pools(t, s)) == 0 { // ReleasePool was applied, but not answered
		if len(p.has) > 0 {
			t.Errorf("crash at %d: the pool is gone, the engine still has %v", k, p.has)
		}
		return
	}
	for addr := range p.has {
		if !slices.Contains(held, addr) {
			t.Errorf("crash at %d: the engine was given %s, the ledger has %q", k, addr, held)
		}
	}
}

// held lists the leases of the pool in the ledger.
func (p *engineState) held(t *testing.T, s store.Store) []string {
	id, _, _ := strings.Cut(p.pool, ".")
	return leases(t, s)[id]
}

// finish allocates all addresses of the pool and releases it.
func (p *engineState) finish(t *testing.T, k int, s store.Store) {
	t.Helper()
	for range 8 {
		r, err := p.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: p.pool})
		if err != nil {
			break
		}
		addr := netip.MustParsePrefix(r.Address).Addr().String()
		if p.has[addr] {
			t.Errorf("crash at %d: %s was given twice", k, addr)
		}
		p.has[addr] = true
	}
	if held := p.held(t, s); len(held) < 5 { // one of the six may be kept for a router
		t.Errorf("crash at %d: the pool is used up with %q", k, held)
	}
	checkInvariants(t, p.d, s)
	if _, err := p.d.ReleasePool(context.Background(), &ipam.ReleasePoolRequest{PoolID: p.pool}); err != nil {
		t.Errorf("crash at %d: %v", k, err)
	}
	if left := keys(t, s, "ipam/"); len(left) > 0 {
		t.Errorf("crash at %d: in the end the ledger has %q", k, left)
	}
}
