package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// heldStore is a store whose transactions wait, each for its verdict, while it is held.
type heldStore struct {
	*store.Memory
	held  atomic.Bool
	queue chan chan error
}

// Txn implements [store.Store]. A verdict that is an error refuses the transaction.
func (s *heldStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if s.held.Load() {
		verdict := make(chan error)
		s.queue <- verdict
		if err := <-verdict; err != nil {
			return store.Result{}, err
		}
	}
	return s.Memory.Txn(ctx, conds, then)
}

// inFlight is a fixture with requests that run at once on a slow disk.
type inFlight struct {
	*fixture
	disk *heldStore
	pool string
}

// withFlight runs a test with a pool. In the end all goes on.
func withFlight(t *testing.T, subnet string, options map[string]string, run func(f *inFlight)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &inFlight{fixture: &fixture{T: t, store: store.NewMemory()}}
		f.disk = &heldStore{Memory: f.store, queue: make(chan chan error, 100)}
		f.d = newDriver(t, f.disk)
		r, err := f.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: subnet, Options: options})
		if err != nil {
			t.Fatal(err)
		}
		f.pool = r.PoolID
		run(f)
		checkInvariants(t, f.d, f.store)
	})
}

// take starts a request for an address. It is answered later.
func (f *inFlight) take() <-chan string {
	answer := make(chan string, 1)
	go func() {
		got, err := f.request(f.pool, "", nil)
		if err != nil {
			got = err.Error()
		}
		answer <- got
	}()
	synctest.Wait()
	return answer
}

// waits checks how many transactions wait.
func (f *inFlight) waits(n int) {
	f.Helper()
	synctest.Wait()
	if got := len(f.disk.queue); got != n {
		f.Errorf("%d transactions wait, want %d", got, n)
	}
}

// next ends the wait of the transaction that came first.
func (f *inFlight) next(verdict error) {
	(<-f.disk.queue) <- verdict
	synctest.Wait()
}

// answers compares the answers of requests.
func (f *inFlight) answers(all []<-chan string, want ...string) {
	f.Helper()
	var got []string
	for _, answer := range all {
		got = append(got, <-answer)
	}
	if !slices.Equal(got, want) {
		f.Errorf("answers\n got: %q\nwant: %q", got, want)
	}
}

// TestRequestsWaitAtOnce: requests to one pool wait for the disk at once, each with an address of its own, and are answered after it. The disk
// has no order.
func TestRequestsWaitAtOnce(t *testing.T) {
	withFlight(t, "10.1.0.0/24", nil, func(f *inFlight) {
		f.disk.held.Store(true)
		all := []<-chan string{f.take(), f.take(), f.take()}
		f.waits(3)
		for _, answer := range all {
			if len(answer) > 0 {
				f.Error("an answer before the commit")
			}
		}
		f.disk.queue <- <-f.disk.queue // the first one is last
		for range 3 {
			f.next(nil)
		}
		f.answers(all, "10.1.0.2/24", "10.1.0.3/24", "10.1.0.4/24")
		f.disk.held.Store(false)
		f.release(f.pool, "10.1.0.2")
		f.gives(f.pool, "", nil, "10.1.0.5/24")
	})
}

// TestFullMeanwhile: a pool is full only when the requests that wait for the disk have their addresses.
func TestFullMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/29", nil, func(f *inFlight) {
		f.disk.held.Store(true)
		var all []<-chan string
		for range 7 {
			all = append(all, f.take())
		}
		f.waits(5)
		f.next(fmt.Errorf("%w: no space left", store.ErrUnavailable))
		for range 4 {
			f.next(nil)
		}
		f.next(nil) // of the sixth request, which has what the first did not get
		full := "pool 10.1.0.0/29: request address: all 5 addresses are in use; remove a container, or create the network with a larger " +
			"--subnet; 10.1.0.1 is kept for a router, a container can have it with --ip"
		f.answers(all, "pool 10.1.0.0/29: request address: ledger unavailable: no space left", "10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29",
			"10.1.0.6/29", "10.1.0.2/29", full)
	})
}

// TestReleasedMeanwhile: an address is given again once its release is on the disk.
func TestReleasedMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/31", nil, func(f *inFlight) {
		for range 2 {
			if _, err := f.request(f.pool, "", nil); err != nil {
				f.Fatal(err)
			}
		}
		f.disk.held.Store(true)
		go f.release(f.pool, "10.1.0.1")
		f.waits(1)
		answer := f.take()
		f.waits(1)
		f.next(nil)
		f.next(nil)
		f.answers([]<-chan string{answer}, "10.1.0.1/31")
	})
}

// TestLoadedMeanwhile: a pool that is loaded again has the addresses of requests that wait for the disk as taken, also if it gives the lowest
// one.
func TestLoadedMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/24", map[string]string{"reuse": "immediate"}, func(f *inFlight) {
		f.disk.held.Store(true)
		all := []<-chan string{f.take(), f.take()}
		f.next(store.ErrAmbiguous) // the cache is not known to be right
		all = append(all, f.take(), f.take())
		for range 3 {
			f.next(nil)
		}
		f.answers(all, "pool 10.1.0.0/24: request address: ledger write not confirmed", "10.1.0.3/24", "10.1.0.2/24", "10.1.0.4/24")
	})
}

// TestRemovedMeanwhile: a pool is removed after the requests that wait for the disk, with their leases.
func TestRemovedMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/24", nil, func(f *inFlight) {
		f.disk.held.Store(true)
		answer := f.take()
		go f.releasePool(f.pool)
		synctest.Wait()
		late := f.take()
		f.waits(1)
		f.next(nil)
		f.waits(1)
		f.next(nil)
		if got := <-answer; got != "10.1.0.2/24" {
			f.Error(got)
		}
		if got, want := <-late, fmt.Sprintf("pool %q: request address: no such pool; create the network again", f.pool); got != want {
			f.Errorf("a request after it\n got: %s\nwant: %s", got, want)
		}
		if left := keys(f.T, f.store, ""); len(left) > 0 {
			f.Errorf("the ledger still has %q", left)
		}
	})
}

// TestGatewayMeanwhile: a request that writes the pool's record waits for the others, and they for it.
func TestGatewayMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/24", nil, func(f *inFlight) {
		f.disk.held.Store(true)
		all := []<-chan string{f.take()}
		gateway := make(chan string, 1)
		go func() {
			got, err := f.request(f.pool, "", asGateway)
			gateway <- strings.TrimSuffix(fmt.Sprint(got, err), "<nil>")
		}()
		synctest.Wait()
		all = append(all, gateway, f.take())
		for range 3 {
			f.waits(1)
			f.next(nil)
		}
		f.answers(all, "10.1.0.2/24", "10.1.0.1/24", "10.1.0.3/24")
	})
}

// TestLeftMeanwhile: a client that goes while its request waits for the disk leaves nothing.
func TestLeftMeanwhile(t *testing.T) {
	withFlight(t, "10.1.0.0/24", nil, func(f *inFlight) {
		f.disk.held.Store(true)
		ctx, leave := context.WithCancel(f.Context())
		left := make(chan error, 1)
		go func() {
			_, err := f.d.RequestAddress(ctx, addressRequest(f.pool, "", nil))
			left <- err
		}()
		synctest.Wait()
		other := f.take()
		leave()
		f.next(nil) // refused: its context has ended
		f.next(nil)
		if err := <-left; !errors.Is(err, context.Canceled) {
			f.Error(err)
		}
		f.answers([]<-chan string{other}, "10.1.0.3/24")
		if got := leases(f.T, f.store)[f.pool]; !slices.Equal(got, []string{"10.1.0.3"}) {
			f.Errorf("leases %q", got)
		}
	})
}

// TestCrashInFlight: the process crashes while requests wait for the disk. A request that was answered has its address, and the next process
// does not give it again.
func TestCrashInFlight(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		for k := 1; ; k++ {
			b := &fixture{T: t, store: store.NewMemory()}
			b.d = newDriver(t, b.store)
			pool := b.pool("10.1.0.0/28", "")
			crash := storetest.NewCrash(b.store, k, fate)
			b.d = newDriver(t, crash)
			var mu sync.Mutex // guards held
			held := map[string]bool{}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					got, err := b.request(pool, "", nil)
					if err != nil {
						return
					}
					a, _, _ := strings.Cut(got, "/")
					if i%2 == 0 { // from here on it may be free, whatever the answer
						_, err = b.d.ReleaseAddress(t.Context(), &ipam.ReleaseAddressRequest{PoolID: pool, Address: a})
						if err == nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) {
							return
						}
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					if held[a] {
						t.Errorf("%s, crash %d: %s was given twice", fate, k, a)
					}
					held[a] = true
				})
			}
			wg.Wait()
			b.d = newDriver(t, b.store)
			for a := range held {
				if !slices.Contains(leases(t, b.store)[pool], a) {
					t.Errorf("%s, crash %d: %s was given and has no lease", fate, k, a)
				}
			}
			for {
				got, err := b.request(pool, "", nil)
				if errors.Is(err, ipamdrv.ErrFull) {
					break
				}
				if a, _, _ := strings.Cut(got, "/"); err != nil || held[a] {
					t.Fatalf("%s, crash %d: %s, %v after the crash", fate, k, got, err)
				}
			}
			checkInvariants(t, b.d, b.store)
			if !crash.Dead() {
				break
			}
		}
	}
}
