package ipamdrv_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// modelPool is a pool in its simplest form: a list of addresses and which container has which.
type modelPool struct {
	prefix, within netip.Prefix
	gateway        netip.Addr
	cursor         netip.Addr
	leases         map[netip.Addr]string // container by address; "" without a name

	lowest             bool
	excluded           []netip.Addr
	quarantine, sticky time.Duration
	rests              map[netip.Addr]modelCooldown
}

// modelCooldown is an address that a container had.
type modelCooldown struct {
	owner string
	since time.Time
}

// setOptions gives the pool options.
func (m *modelPool) setOptions(options map[string]string) {
	m.lowest = options["reuse"] == "immediate"
	m.quarantine, _ = time.ParseDuration(options["quarantine"])
	for _, text := range strings.Split(options["exclude"], ",") {
		first, last, _ := strings.Cut(text, "-")
		for a, err := netip.ParseAddr(first); err == nil; a = a.Next() {
			if m.excluded = append(m.excluded, a); a.String() == last {
				break
			}
		}
	}
	m.sticky, _ = time.ParseDuration(options["sticky"])
	if options["sticky"] == "" && !m.lowest {
		m.sticky = time.Hour
	}
}

// resting returns true if a must not be given to another container yet; kept, if only because it is kept for its owner.
func (m *modelPool) resting(a netip.Addr) (rests, kept bool) {
	r, ok := m.rests[a]
	past := time.Since(r.since)
	if !ok || past >= m.quarantine && (r.owner == "" || past >= m.sticky) {
		return false, false
	}
	return true, past >= m.quarantine
}

// had returns the address that is kept for owner, not valid if there is none.
func (m *modelPool) had(owner string) (last netip.Addr) {
	for a, r := range m.rests {
		rests, _ := m.resting(a)
		if owner != "" && m.sticky > 0 && r.owner == owner && rests && (!last.IsValid() ||
			cmp.Or(r.since.Compare(m.rests[last].since), a.Compare(last)) > 0) {
			last = a
		}
	}
	return last
}

// spare returns the address of order that is kept for a container for the longest time, not valid if there is none.
func (m *modelPool) spare(order []netip.Addr) (oldest netip.Addr) {
	for _, a := range order {
		if _, kept := m.resting(a); kept && (!oldest.IsValid() ||
			cmp.Or(m.rests[a].since.Compare(m.rests[oldest].since), a.Compare(oldest)) < 0) {
			oldest = a
		}
	}
	return oldest
}

// clone returns a copy.
func (m *modelPool) clone() *modelPool {
	c := *m
	c.leases, c.rests = maps.Clone(m.leases), maps.Clone(m.rests)
	return &c
}

// usable lists the addresses that can be given.
func (m *modelPool) usable() []netip.Addr {
	var all []netip.Addr
	for a := m.prefix.Addr(); m.prefix.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	if len(all) > 2 {
		all = all[1:]
		if m.prefix.Addr().Is4() {
			all = all[:len(all)-1]
		}
	}
	return all
}

// choice lists the addresses that can be allocated and are not leased, in the order of allocation.
func (m *modelPool) choice() []netip.Addr {
	usable := m.usable()
	var before, after []netip.Addr
	inRange := 0
	for _, a := range usable {
		if m.within.IsValid() && !m.within.Contains(a) || slices.Contains(m.excluded, a) {
			continue
		}
		inRange++
		if m.cursor.IsValid() && !m.lowest && a.Compare(m.cursor) <= 0 {
			before = append(before, a)
		} else {
			after = append(after, a)
		}
	}
	order := append(after, before...)
	return slices.DeleteFunc(order, func(a netip.Addr) bool {
		kept := a == usable[0] && len(usable) > 4 && !m.gateway.IsValid() && inRange > 1
		_, leased := m.leases[a]
		return kept || leased
	})
}

// machine runs the driver and the model in parallel.
type machine struct {
	store *store.Memory
	d     *ipamdrv.Driver
	pools map[string]*modelPool
}

// subnets are small, so that every case occurs often.
var subnets = [][2]string{
	{"10.0.0.0/28", ""}, {"10.0.0.0/29", ""}, {"10.0.0.0/29", "10.0.0.4/30"}, {"10.0.0.0/30", ""}, {"10.0.0.0/31", ""},
	{"10.0.0.0/32", ""}, {"10.0.0.0/29", "10.0.0.0/30"}, {"10.0.0.0/29", "10.0.0.1/32"}, {"10.0.0.0/28", "10.0.0.15/32"},
	{"fd00::/125", ""}, {"fd00::/124", "fd00::/126"}, {"fd00::/126", ""}, {"fd00::/127", ""}, {"fd00::/128", ""},
}

// poolOptions are combinations of options of pools.
var poolOptions = []map[string]string{
	nil, {"sticky": "off"}, {"reuse": "immediate"}, {"quarantine": "10s"}, {"sticky": "20s"}, {"quarantine": "10s", "sticky": "5s"},
	{"quarantine": "10s", "sticky": "20s", "reuse": "immediate"},
	{"exclude": "10.0.0.2-10.0.0.4,10.0.0.3-10.0.0.6,fd00::1-fd00::3,10.0.0.13-10.0.0.14"},
}

// TestAgainstModel compares every answer with the model's, through restarts and crashes.
func TestAgainstModel(t *testing.T) {
	// rapid asks a test for its deadline, which panics in a bubble, so it does not see that method.
	synctest.Test(t, func(t *testing.T) { rapid.Check(struct{ rapid.TB }{t}, againstModel) })
}

// againstModel is one run of random steps.
func againstModel(t *rapid.T) {
	s := store.NewMemory()
	m := &machine{store: s, d: mustNew(t, s), pools: map[string]*modelPool{}}
	t.Repeat(map[string]func(*rapid.T){
		"request pool":    m.requestPool,
		"release pool":    m.releasePool,
		"choose":          func(t *rapid.T) { m.step(t, "choose") },
		"choose more":     func(t *rapid.T) { m.step(t, "choose") },
		"ask":             func(t *rapid.T) { m.step(t, "ask") },
		"gateway":         func(t *rapid.T) { m.step(t, "gateway") },
		"invent gateway":  func(t *rapid.T) { m.step(t, "invent") },
		"release":         func(t *rapid.T) { m.step(t, "release") },
		"release again":   func(t *rapid.T) { m.step(t, "release") },
		"restart":         func(t *rapid.T) { m.restart(t) },
		"crash, lost":     func(t *rapid.T) { m.crash(t, storetest.Lost) },
		"crash, unknown":  func(t *rapid.T) { m.crash(t, storetest.Unanswered) },
		"ambiguous store": m.ambiguous,
		"wait":            func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 15).Draw(t, "s")) * time.Second) },
		"":                m.check,
	})
}

// mustNew creates a driver.
func mustNew(t *rapid.T, s store.Store) *ipamdrv.Driver {
	d, err := ipamdrv.New(ipamdrv.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// restart creates a new driver with the ledger.
func (m *machine) restart(t *rapid.T) {
	m.store = m.store.Reopen()
	m.d = mustNew(t, m.store)
}

// check compares the ledger with the model and the cache with the ledger.
func (m *machine) check(t *rapid.T) {
	checkInvariants(t, m.d, m.store)
	if diff := diff.Diff(m.modelLeases(), sorted(leases(t, m.store))); diff != "" {
		t.Fatalf("leases (-model +ledger):\n%s", diff)
	}
	want := slices.Sorted(maps.Keys(m.pools))
	if got := pools(t, m.store); !slices.Equal(want, got) {
		t.Fatalf("pools %q, want %q", got, want)
	}
}

// modelLeases returns the model's leases in the form of [leases].
func (m *machine) modelLeases() map[string][]string {
	got := map[string][]string{}
	for handle, p := range m.pools {
		for a := range p.leases {
			got[handle] = append(got[handle], a.String())
		}
	}
	return sorted(got)
}

// sorted sorts every list in place.
func sorted(lists map[string][]string) map[string][]string {
	for _, l := range lists {
		slices.Sort(l)
	}
	return lists
}

// requestPool requests a pool of the driver and of the model.
func (m *machine) requestPool(t *rapid.T) {
	pick := rapid.SampledFrom(subnets).Draw(t, "subnet")
	p := &modelPool{prefix: netip.MustParsePrefix(pick[0]), leases: map[netip.Addr]string{},
		rests: map[netip.Addr]modelCooldown{}}
	if pick[1] != "" {
		p.within = netip.MustParsePrefix(pick[1])
	}
	options := rapid.SampledFrom(poolOptions).Draw(t, "options")
	r, err := m.d.RequestPool(context.Background(),
		&ipam.RequestPoolRequest{Pool: pick[0], SubPool: pick[1], Options: options})
	empty := len(p.choice()) == 0
	p.setOptions(options)
	if empty {
		if !errors.Is(err, ipamdrv.ErrInvalid) {
			t.Fatalf("RequestPool(%v): %v, want it refused", pick, err)
		}
		return
	}
	if err != nil || m.pools[r.PoolID] != nil || r.Pool != pick[0] {
		t.Fatalf("RequestPool(%v) = %+v, %v", pick, r, err)
	}
	m.pools[r.PoolID] = p
}

// some draws one of the pools. It skips the step if there is none.
func (m *machine) some(t *rapid.T) (string, *modelPool) {
	if len(m.pools) == 0 {
		t.Skip("no pool")
	}
	handles := slices.Sorted(maps.Keys(m.pools))
	handle := handles[rapid.IntRange(0, len(handles)-1).Draw(t, "pool")]
	return handle, m.pools[handle]
}

// releasePool releases a pool of the driver and of the model.
func (m *machine) releasePool(t *rapid.T) {
	handle, _ := m.some(t)
	if _, err := m.d.ReleasePool(context.Background(), &ipam.ReleasePoolRequest{PoolID: handle}); err != nil {
		t.Fatalf("ReleasePool: %v", err)
	}
	delete(m.pools, handle)
}

// call is one step on one pool: the call of the driver, and the same for the model.
type call struct {
	what string
	ask  func(d *ipamdrv.Driver) (string, error)
	// model returns the answer that the driver must give.
	model func(p *modelPool) (string, error)
}

// draw draws a call of this kind.
func draw(t *rapid.T, kind, handle string, p *modelPool) call {
	var a netip.Addr
	if kind != "choose" && kind != "invent" {
		around := append(p.usable(), p.prefix.Addr(), p.prefix.Addr().Prev(), netip.MustParseAddr("10.0.0.15"))
		a = rapid.SampledFrom(slices.DeleteFunc(around, func(a netip.Addr) bool { return !a.IsValid() })).Draw(t, "addr")
	}
	if kind == "release" {
		return call{"release " + a.String(), func(d *ipamdrv.Driver) (string, error) {
			_, err := d.ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: handle, Address: a.String()})
			return "", err
		}, func(p *modelPool) (string, error) { return p.release(a) }}
	}
	req := &ipam.RequestAddressRequest{PoolID: handle}
	if a.IsValid() {
		req.Address = a.String()
	}
	owner := rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "owner")
	if owner != "" {
		req.Options = map[string]string{"com.docker.network.endpoint.name": owner}
	}
	if kind == "gateway" || kind == "invent" {
		req.Options = asGateway
	}
	return call{fmt.Sprint(kind, " ", req.Address, " ", req.Options), func(d *ipamdrv.Driver) (string, error) {
		r, err := d.RequestAddress(context.Background(), req)
		if err != nil {
			return "", err
		}
		return r.Address, nil
	}, func(p *modelPool) (string, error) { return p.request(kind, a, owner) }}
}

// release is the model's ReleaseAddress.
func (m *modelPool) release(a netip.Addr) (string, error) {
	owner, ok := m.leases[a]
	delete(m.leases, a)
	if ok && a != m.gateway {
		m.rests[a] = modelCooldown{owner, time.Now()}
	}
	if a == m.gateway {
		m.gateway = netip.Addr{}
	}
	return "", nil
}

// request is the model's RequestAddress.
func (m *modelPool) request(kind string, a netip.Addr, owner string) (string, error) {
	isGateway := kind == "gateway" || kind == "invent"
	switch {
	case kind == "choose":
		if a = m.had(owner); a.IsValid() {
			break
		}
		order := m.choice()
		free := slices.DeleteFunc(slices.Clone(order), func(a netip.Addr) bool { rests, _ := m.resting(a); return rests })
		if a = m.spare(order); len(free) > 0 {
			a = free[0]
		}
		if !a.IsValid() {
			return "", ipamdrv.ErrFull
		}
		m.cursor = a
	case isGateway && m.gateway.IsValid() && (kind == "invent" || a == m.gateway):
		return netip.PrefixFrom(m.gateway, m.prefix.Bits()).String(), nil
	case isGateway && m.gateway.IsValid():
		return "", ipamdrv.ErrInUse
	case kind == "invent":
		a = m.usable()[0]
	}
	if !slices.Contains(m.usable(), a) {
		return "", ipamdrv.ErrInvalid
	}
	if _, ok := m.leases[a]; ok {
		return "", ipamdrv.ErrInUse
	}
	m.leases[a] = owner
	delete(m.rests, a)
	if isGateway {
		m.gateway = a
	}
	return netip.PrefixFrom(a, m.prefix.Bits()).String(), nil
}

// step makes one call of both and compares the answers.
func (m *machine) step(t *rapid.T, kind string) {
	handle, p := m.some(t)
	c := draw(t, kind, handle, p)
	got, err := c.ask(m.d)
	want, wantErr := c.model(p)
	if got != want || !errors.Is(err, wantErr) {
		t.Fatalf("%s on %s %s: %q, %v, want %q, %v", c.what, p.prefix, p.within, got, err, want, wantErr)
	}
}

// crash makes one call whose transaction is lost or is applied without an answer, and restarts. Afterwards the call has happened or has
// not, whatever the caller was told.
func (m *machine) crash(t *rapid.T, fate storetest.Fate) {
	handle, p := m.some(t)
	kind := rapid.SampledFrom([]string{"choose", "ask", "gateway", "invent", "release"}).Draw(t, "kind")
	c := draw(t, kind, handle, p)
	crashing := storetest.NewCrash(m.store, 1, fate)
	got, err := c.ask(mustNew(t, crashing))
	after := p.clone()
	want, wantErr := c.model(after)
	switch {
	case !crashing.Dead() && (got != want || !errors.Is(err, wantErr)):
		t.Fatalf("%s: %q, %v, want %q, %v", c.what, got, err, want, wantErr)
	case crashing.Dead() && err == nil:
		t.Fatalf("%s answered %q, but nothing was confirmed", c.what, got)
	}
	if !crashing.Dead() || fate == storetest.Unanswered {
		m.pools[handle] = after
	}
	m.restart(t)
}

// ambiguous makes one call on a store that applies or drops a transaction and returns ErrAmbiguous. The driver must find out which.
func (m *machine) ambiguous(t *rapid.T) {
	handle, p := m.some(t)
	kind := rapid.SampledFrom([]string{"choose", "ask", "gateway", "invent", "release"}).Draw(t, "kind")
	c := draw(t, kind, handle, p)
	forgetful := &forgetful{Store: m.store, rnd: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
	m.d = mustNew(t, forgetful)
	got, err := c.ask(m.d)
	forgetful.cured = true // the driver continues with what it has cached
	after := p.clone()
	want, wantErr := c.model(after)
	if errors.Is(err, store.ErrAmbiguous) {
		if forgetful.applied && !forgetful.blind {
			t.Fatalf("%s: %v, but the ledger shows that it was applied", c.what, err)
		}
		if forgetful.applied {
			m.pools[handle] = after
		}
		return
	}
	if got != want || !errors.Is(err, wantErr) {
		t.Fatalf("%s: %q, %v, want %q, %v", c.what, got, err, want, wantErr)
	}
	m.pools[handle] = after
}

// forgetful is a store that returns ErrAmbiguous for transactions until it is cured. Sometimes reads fail as well.
type forgetful struct {
	store.Store
	rnd                   *rand.Rand
	applied, blind, cured bool
}

func (f *forgetful) Get(ctx context.Context, key string) (store.KV, error) {
	if f.blind && !f.cured {
		return store.KV{}, store.ErrUnavailable
	}
	return f.Store.Get(ctx, key)
}

func (f *forgetful) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if f.cured {
		return f.Store.Txn(ctx, conds, then)
	}
	blind := f.rnd.IntN(2) == 0
	if f.rnd.IntN(2) == 0 {
		f.blind = blind
		return store.Result{}, store.ErrAmbiguous
	}
	r, err := f.Store.Txn(ctx, conds, then)
	if err != nil || !r.OK {
		return r, err
	}
	f.applied, f.blind = true, blind
	return store.Result{}, store.ErrAmbiguous
}
