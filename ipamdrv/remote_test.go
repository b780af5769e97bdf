package ipamdrv_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
	"github.com/mellanox/passthrough/test/harness/ipamserver"
)

// remoteNetworks are those of the IPAM server.
const remoteNetworks = `[
	{"name": "mynet", "subnets": [
		{"subnet": "10.55.206.0/26", "first": "10.55.206.46", "last": "10.55.206.48", "gateway": "10.55.206.1"},
		{"subnet": "fd00:55::/64", "gateway": "fd00:55::1"}]},
	{"name": "a", "subnets": [{"subnet": "10.1.0.0/29"}]}, {"name": "b", "subnets": [{"subnet": "10.1.0.0/29"}]}]`

// A remoteFixture is a driver whose addresses are those of an IPAM server, which is a process and is spoken to over TLS.
type remoteFixture struct {
	*testing.T
	server *ipamserver.Server
	store  store.Store
	d      *ipamdrv.Driver
	stop   func() // ends the driver
}

func newRemoteFixture(t *testing.T) *remoteFixture {
	t.Helper()
	f := &remoteFixture{T: t, server: ipamserver.Start(t, remoteNetworks), store: store.NewMemory(), stop: func() {}}
	f.start(f.store)
	t.Cleanup(func() { f.stop() })
	return f
}

// start replaces the driver by one on a store.
func (f *remoteFixture) start(s store.Store) {
	f.Helper()
	f.stop()
	d, err := ipamdrv.New(ipamdrv.Config{Store: s, Remote: remote.New(f.server.Config), NodeName: "node1"})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- d.RenewLeases(ctx) }()
	f.store, f.d, f.stop = s, d, func() {
		cancel()
		<-ended
		d.Close()
	}
}

// pool requests a pool.
func (f *remoteFixture) pool(subnet string, options ...string) (*ipam.RequestPoolResponse, error) {
	given := map[string]string{}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		given[name] = value
	}
	prefix, err := netip.ParsePrefix(subnet)
	return f.d.RequestPool(f.Context(), &ipam.RequestPoolRequest{Pool: subnet, Options: given, V6: err == nil && prefix.Addr().Is6()})
}

// mustPool requests a pool, and returns its handle.
func (f *remoteFixture) mustPool(subnet string, options ...string) string {
	f.Helper()
	r, err := f.pool(subnet, options...)
	if err != nil {
		f.Fatal(err)
	}
	return r.PoolID
}

// request requests an address, and returns it without its prefix length.
func (f *remoteFixture) request(pool, addr string, options map[string]string) (string, error) {
	r, err := f.d.RequestAddress(f.Context(), &ipam.RequestAddressRequest{PoolID: pool, Address: addr, Options: options})
	if err != nil {
		return "", err
	}
	return netip.MustParsePrefix(r.Address).Addr().String(), nil
}

// gives requests an address, which must be this one.
func (f *remoteFixture) gives(pool, addr, want string) {
	f.Helper()
	if got, err := f.request(pool, addr, named); err != nil || got != want {
		f.Errorf("request %q: %s, %v, want %s", addr, got, err, want)
	}
}

// release releases an address, which must succeed.
func (f *remoteFixture) release(pool, addr string) {
	f.Helper()
	if _, err := f.d.ReleaseAddress(f.Context(), &ipam.ReleaseAddressRequest{PoolID: pool, Address: addr}); err != nil {
		f.Error(err)
	}
}

// await waits until the server has leased these addresses and no others, and the ledger has no key to release.
func (f *remoteFixture) await(want ...string) {
	f.Helper()
	var got, owed []string
	err := retry.Poll(f.Context(), 10e6, 30e9, func() (bool, error) {
		got, owed = slices.Sorted(maps.Keys(f.server.Leases())), keys(f.T, f.store, "ipam/remote/")
		return slices.Equal(got, want) && len(owed) == 0, nil
	})
	if err != nil {
		f.Errorf("the server has leased %v, want %v; keys %v (%v)", got, want, owed, err)
	}
}

// TestRemote: addresses are those of the server, which knows whose they are, and what is released here is released there.
func TestRemote(t *testing.T) {
	t.Parallel()
	f := newRemoteFixture(t)
	r, err := f.pool("10.55.206.0/26")
	if err != nil || r.Data["com.docker.network.gateway"] != "10.55.206.1/26" {
		t.Fatalf("%+v, %v", r, err)
	}
	id := r.PoolID
	if got, err := f.request(id, "10.55.206.1", asGateway); err != nil || got != "10.55.206.1" {
		t.Errorf("gateway: %s, %v", got, err)
	}
	f.gives(id, "", "10.55.206.46")
	f.gives(id, "10.55.206.48", "10.55.206.48")
	f.gives(id, "", "10.55.206.47")
	f.await("10.55.206.46", "10.55.206.47", "10.55.206.48")
	leases, err := remote.New(f.server.Config).Leases(t.Context(), "mynet", "node1")
	if err != nil || len(leases) != 3 || leases[0].PodID != "c1" || leases[0].HostIP.String() != "127.0.0.1" || leases[0].Subnet.String() != "10.55.206.0/26" {
		t.Errorf("%+v, %v", leases, err)
	}
	for addr, c := range map[string]struct {
		kind error
		want string
	}{
		"":             {ipamdrv.ErrFull, "request address: IPAM server " + f.server.URL + ": network mynet has no address left"},
		"10.55.206.46": {ipamdrv.ErrInUse, "request address 10.55.206.46: IPAM server " + f.server.URL + ": address 10.55.206.46 is in use"},
	} {
		if _, err := f.request(id, addr, named); !errors.Is(err, c.kind) || err.Error() != "pool 10.55.206.0/26: "+c.want {
			t.Errorf("request %q: %v, want %s", addr, err, c.want)
		}
	}
	f.release(id, "10.55.206.47")
	f.await("10.55.206.46", "10.55.206.48")
	v6 := f.mustPool("fd00:55::/64", "remote=mynet")
	f.gives(v6, "", "fd00:55::2")
	checkInvariants(t, f.d, f.store)
	for _, p := range []string{id, v6} {
		if _, err := f.d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: p}); err != nil {
			t.Error(err)
		}
	}
	f.await()
	if left := keys(t, f.store, ""); len(left) > 0 {
		t.Errorf("left in the ledger: %v", left)
	}
}

// TestRemotePools: which pools have the server's addresses, and what is said if they cannot.
func TestRemotePools(t *testing.T) {
	t.Parallel()
	f := newRemoteFixture(t)
	server := "IPAM server " + f.server.URL + ": "
	const has = "it has no network for this request; create the network with one of its subnets, --subnet=... of 10.1.0.0/29 (a), 10.1.0.0/29 (b), 10.55.206.0/26 (mynet); " +
		"or with --ipam-opt remote=off, so that this node chooses the addresses itself"
	for _, c := range []struct{ subnet, option, want string }{
		{"10.2.0.0/24", "", "pool 10.2.0.0/24: request: " + server + has},
		{"", "", "request pool: " + server + has},
		{"10.1.0.0/29", "", "pool 10.1.0.0/29: request: " + server + "networks a and b have subnet 10.1.0.0/29; name one with --ipam-opt remote=a"},
		{"10.1.0.0/29", "remote=c", "pool 10.1.0.0/29: request: " + server +
			"it has no network for this request; with --ipam-opt remote=off this node chooses the addresses itself"},
		{"10.1.0.0/29", "sticky=1h", "pool 10.1.0.0/29: request: " + server + "networks a and b have subnet 10.1.0.0/29; name one with --ipam-opt remote=a"},
		{"10.55.206.0/26", "sticky=1h", "pool 10.55.206.0/26: request: ipam options remote and sticky: the IPAM server chooses the addresses; " +
			"say only one of them, or remote=off"},
	} {
		var options []string
		if c.option != "" {
			options = []string{c.option}
		}
		if r, err := f.pool(c.subnet, options...); err == nil || err.Error() != c.want {
			t.Errorf("%s %s: %+v, %v, want %s", c.subnet, c.option, r, err, c.want)
		}
	}
	own := f.mustPool("10.1.0.0/29", "remote=off")
	f.gives(own, "10.1.0.5", "10.1.0.5")
	two := f.mustPool("10.1.0.0/29", "remote=b", "pool=lan")
	same := f.mustPool("10.1.0.0/29", "remote=b", "pool=lan")
	f.gives(two, "", "10.1.0.1")
	f.gives(same, "", "10.1.0.2")
	f.await("10.1.0.1", "10.1.0.2")
	if _, err := f.d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: same}); err != nil {
		t.Error(err)
	}
	f.await("10.1.0.1")

	// A pool of before the setting, and one of the server after it.
	f.stop()
	f.stop = func() {}
	d := newDriver(t, f.store)
	b := &fixture{T: t, d: d}
	before := b.pool("10.55.206.0/26", "")
	b.gives(before, "10.55.206.9", nil, "10.55.206.9/26")
	b.refuses(two, "", nil, ipamdrv.ErrInvalid, "pool 10.1.0.0/29: request address: the addresses of this pool are an IPAM server's; set STORE=https://... again")
	b.release(two, "10.1.0.1")
	if _, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.1.0.0/29", Options: map[string]string{"remote": "b"}}); err == nil ||
		!strings.HasSuffix(err.Error(), "ipam option remote: needs STORE=https://...") {
		t.Errorf("remote without a server: %v", err)
	}
	d.Close()
	f.start(f.store)
	f.await()
	f.gives(before, "10.55.206.10", "10.55.206.10")
	f.await()

	dry, err := f.d.DryRun()
	if err != nil {
		t.Fatal(err)
	}
	defer dry.Close()
	f.server.Asked()
	r, err := dry.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.55.206.0/26"})
	if err == nil {
		_, err = dry.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: r.PoolID, Address: "10.55.206.48"})
	}
	if asked := f.server.Asked(); err != nil || len(asked) > 0 {
		t.Errorf("a dry run: %v; the server was asked to %v", err, asked)
	}
}

// TestRemoteAway: while the server does not answer, what is released waits, also for a restart of the plugin, and what is requested is refused at
// once. An answer that was lost loses no address.
func TestRemoteAway(t *testing.T) {
	t.Parallel()
	f := newRemoteFixture(t)
	id := f.mustPool("10.55.206.0/26")
	f.gives(id, "", "10.55.206.46")
	f.gives(id, "", "10.55.206.47")

	// Killed after it has leased the address, and started again: the client asks again.
	f.server.Lose(func(r *http.Request) bool {
		if r.Method == http.MethodPut {
			f.server.Lose(func(*http.Request) bool { return false })
			f.server.Kill()
			go f.server.Restart()
		}
		return r.Method == http.MethodPut
	})
	f.gives(id, "", "10.55.206.48")
	f.release(id, "10.55.206.48")
	f.await("10.55.206.46", "10.55.206.47")

	// Killed, and away for long.
	f.server.Lose(func(r *http.Request) bool {
		if r.Method == http.MethodPut {
			f.server.Kill()
		}
		return true
	})
	_, err := f.request(id, "", named)
	if !errors.Is(err, remote.ErrUnavailable) || !strings.HasPrefix(err.Error(), "pool 10.55.206.0/26: request address: IPAM server "+f.server.URL+" does not answer (") {
		t.Errorf("an answer that is lost: %v", err)
	}
	if n := len(f.server.Leases()); n != 3 {
		t.Errorf("the server has leased %d addresses", n)
	}
	f.server.Asked()
	if _, err := f.request(id, "", named); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("a server that is away: %v", err)
	}
	if _, err := f.pool("10.55.206.0/26"); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("a network while the server is away: %v", err)
	}
	f.release(id, "10.55.206.46")
	if asked := f.server.Asked(); slices.Contains(asked, http.MethodPut) {
		t.Errorf("a server that is away was asked: %v", asked)
	}
	if o, err := f.d.Observe(t.Context()); err != nil || o.Owed != 2 || !errors.Is(o.Away, remote.ErrUnavailable) {
		t.Errorf("while the server is away: %+v, %v", o, err)
	}
	f.start(f.store.(*store.Memory).Reopen())
	if held := f.held(); !slices.Equal(held, []string{"10.55.206.47"}) {
		t.Errorf("the ledger has %v", held)
	}
	f.server.Lose(func(*http.Request) bool { return false })
	f.server.Restart()
	f.await("10.55.206.47")
	f.gives(id, "10.55.206.46", "10.55.206.46")
	if o, err := f.d.Observe(t.Context()); err != nil || o.Owed != 0 || o.Away != nil {
		t.Errorf("when the server is back: %+v, %v", o, err)
	}
}

// TestRemoteOddAnswers: an address that was not asked for, or that another container has here, is refused with the reason, and released at the server.
func TestRemoteOddAnswers(t *testing.T) {
	t.Parallel()
	f := newRemoteFixture(t)
	id := f.mustPool("10.55.206.0/26")
	f.server.Configure(`"gateway": "10.55.206.1"`, `"gateway": "10.55.206.62"`)
	f.server.Configure(`"first": "10.55.206.46"`, `"first": "10.55.206.1"`)
	const gives = "pool 10.55.206.0/26: request address: IPAM server %s gives "
	if _, err := f.request(id, "", named); !errors.Is(err, ipamdrv.ErrInUse) || !strings.HasPrefix(err.Error(), fmt.Sprintf(gives, f.server.URL)+"10.55.206.1, which is in use since ") ||
		!strings.HasSuffix(err.Error(), " by the gateway; it must not give this address") {
		t.Errorf("the gateway as an address: %v", err)
	}
	f.await()
	odd := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			_, _ = w.Write([]byte(`{"ips": [{"address": "10.9.9.9/24"}]}`))
		}
	}))
	defer odd.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: odd.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	f.server.URL, f.server.CA = odd.URL, ca
	f.start(f.store)
	if _, err := f.request(id, "", named); !errors.Is(err, ipamdrv.ErrInvalid) || err.Error() != fmt.Sprintf(gives, odd.URL)+"[10.9.9.9/24], which was not asked for" {
		t.Errorf("another subnet: %v", err)
	}
	f.await()
}

// held lists the addresses of containers in the ledger.
func (f *remoteFixture) held() (held []string) {
	f.Helper()
	for _, addrs := range leases(f.T, f.store) {
		held = append(held, addrs...)
	}
	slices.Sort(held)
	return slices.DeleteFunc(held, func(a string) bool { return a == "10.55.206.1" }) // the gateway, which no server has leased
}

// TestRemoteCrash kills the driver at each of its transactions. A new driver has each address that was answered, releases all others at the
// server, and nothing is leased twice.
func TestRemoteCrash(t *testing.T) {
	t.Parallel()
	f := newRemoteFixture(t)
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		for k := 1; ; k++ {
			if k > 60 {
				t.Fatal("the scenario does not end")
			}
			path := filepath.Join(t.TempDir(), "ledger.db")
			s := openLedger(t, path)
			crash := storetest.NewCrash(s, k, fate)
			f.start(crash)
			has, unsure := f.life()
			dead := crash.Dead()
			f.stop()
			f.stop = func() {}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			f.start(openLedger(t, path))
			f.checkAfterCrash(has, unsure)
			f.stop()
			f.stop = func() {}
			if err := f.store.Close(); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				t.Fatalf("crash at %d, %s", k, fate)
			}
			if !dead {
				if k < 8 {
					t.Errorf("the scenario has %d transactions", k-1)
				}
				break
			}
		}
	}
}

// life is a network whose containers come and go. It returns what the engine was given and has, and what it has tried to release.
func (f *remoteFixture) life() (has, unsure []string) {
	r, err := f.pool("10.55.206.0/26")
	if err != nil {
		return nil, nil
	}
	request := func() {
		if a, err := f.request(r.PoolID, "", named); err == nil {
			has = append(has, a)
		}
	}
	request()
	request()
	if len(has) > 0 {
		a := has[0]
		if _, err := f.d.ReleaseAddress(f.Context(), &ipam.ReleaseAddressRequest{PoolID: r.PoolID, Address: a}); err != nil {
			unsure = append(unsure, a)
		}
		has = has[1:]
	}
	request()
	// What is released here is released there, unless the process dies.
	_ = retry.Poll(f.Context(), 5e6, 5e9, func() (bool, error) {
		return len(f.server.Leases()) == len(has) || f.store.(*storetest.Crash).Dead(), nil
	})
	return has, unsure
}

// checkAfterCrash checks a new driver, and ends the network.
func (f *remoteFixture) checkAfterCrash(has, unsure []string) {
	f.Helper()
	err := retry.Poll(f.Context(), 5e6, 30e9, func() (bool, error) { return len(keys(f.T, f.store, "ipam/remote/")) == 0, nil })
	if err != nil {
		f.Errorf("keys that are not released: %v", keys(f.T, f.store, "ipam/remote/"))
	}
	held := f.held()
	if there := slices.Sorted(maps.Keys(f.server.Leases())); !slices.Equal(there, held) {
		f.Errorf("the server has leased %v, the ledger has %v", there, held)
	}
	unknown := 0
	for _, a := range held {
		if !slices.Contains(has, a) && !slices.Contains(unsure, a) {
			unknown++
		}
	}
	for _, a := range has {
		if !slices.Contains(held, a) {
			f.Errorf("the engine was given %s, the ledger has %v", a, held)
		}
	}
	if unknown > 1 {
		f.Errorf("the engine has %v, the ledger %v", has, held)
	}
	for _, p := range pools(f.T, f.store) {
		if _, err := f.d.ReleasePool(f.Context(), &ipam.ReleasePoolRequest{PoolID: p}); err != nil {
			f.Error(err)
		}
	}
	f.await()
}
