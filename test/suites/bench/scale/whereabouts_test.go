package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/mellanox/passthrough/test/suites/bench/figures"
)

// whereabouts is the algorithm of the CNI plugin whereabouts: under a lock of the range, it reads one object with all reservations, takes the
// first address that is free, and writes the object back (pkg/allocate and pkg/storage; the object is an IPPool of Kubernetes, which is one
// value in etcd). It is favoured here: the lock is one of etcd's, which is free as soon as its holder is done, while whereabouts tries again
// after some time, and there is no API server in between.
type whereabouts struct {
	client *clientv3.Client
	key    string
	first  uint32
	count  int
}

// reservation is what whereabouts keeps of one address, by its offset in the range.
type reservation struct {
	ID     string `json:"id"`
	IfName string `json:"ifname"`
	Pod    string `json:"podref"`
}

// allocations is the object.
type allocations struct {
	Allocations map[string]reservation `json:"allocations"`
}

// fill writes the object with the first of the given addresses taken.
func (w *whereabouts) fill(ctx context.Context, taken []uint32) error {
	all := allocations{map[string]reservation{}}
	for _, n := range taken {
		all.Allocations[strconv.Itoa(int(n-w.first))] = w.reservation(int(n))
	}
	raw, err := json.Marshal(all)
	if err == nil {
		_, err = w.client.Put(ctx, w.key, string(raw))
	}
	return err
}

// reservation is one of a pod.
func (w *whereabouts) reservation(n int) reservation {
	return reservation{ID: fmt.Sprintf("%064x", n), IfName: "eth0", Pod: fmt.Sprintf("default/web-%010x-%05x", n, n)}
}

// allocate takes an address.
func (w *whereabouts) allocate(ctx context.Context, lock *concurrency.Mutex) (netip.Addr, error) {
	if err := lock.Lock(ctx); err != nil {
		return netip.Addr{}, err
	}
	a, err := w.locked(ctx)
	if unlockErr := lock.Unlock(context.WithoutCancel(ctx)); err == nil {
		err = unlockErr
	}
	return a, err
}

// locked is allocate with the lock.
func (w *whereabouts) locked(ctx context.Context) (netip.Addr, error) {
	resp, err := w.client.Get(ctx, w.key)
	if err != nil {
		return netip.Addr{}, err
	}
	var all allocations
	if err := json.Unmarshal(resp.Kvs[0].Value, &all); err != nil {
		return netip.Addr{}, err
	}
	for i := range w.count {
		offset := strconv.Itoa(i)
		if _, taken := all.Allocations[offset]; taken {
			continue
		}
		next := maps.Clone(all.Allocations)
		next[offset] = w.reservation(i)
		raw, err := json.Marshal(allocations{next})
		if err == nil {
			_, err = w.client.Put(ctx, w.key, string(raw))
		}
		return addr(w.first + uint32(i)), err
	}
	return netip.Addr{}, fmt.Errorf("no address left")
}

// whereabouts measures it on the same pool, as far as its object fits into etcd.
func (r *run) whereabouts() {
	w := &whereabouts{client: r.client, key: "/whereabouts" + r.prefix, first: lowest(r.pool.order), count: len(r.pool.order)}
	const tooLarge = "the range does not fit into one value of etcd"
	for _, percent := range []int{50, 90, 99} {
		name := fmt.Sprintf("whereabouts: allocation, %d %% full", percent)
		if err := w.fill(r.T.Context(), r.pool.order[:len(r.pool.order)*percent/100]); err != nil {
			r.T.Logf("%s: %v", name, err)
			r.Add(figures.Figure{Name: name, Text: tooLarge})
			continue
		}
		took, failed := w.inTurn(r, 1, min(*flagCalls, len(r.pool.order)*(100-percent)/200))
		r.Times(name, took, failed)
		if percent == 50 {
			took, failed = w.inTurn(r, *flagNodes, *flagStorm)
			r.Times(fmt.Sprintf("whereabouts: storm of %d, 50 %% full, within %v", *flagStorm, *flagOthers), took, failed)
		}
	}
}

// lowest returns the lowest number.
func lowest(order []uint32) uint32 {
	low := order[0]
	for _, n := range order {
		low = min(low, n)
	}
	return low
}

// inTurn has nodes allocate addresses, each node one after the other, and returns how long each took since it was wanted; all are wanted at
// once if there are several nodes.
func (w *whereabouts) inTurn(r *run, nodes, calls int) (took []time.Duration, failed int) {
	ctx, cancel := context.WithTimeout(r.T.Context(), *flagOthers)
	defer cancel()
	var mu sync.Mutex
	var working sync.WaitGroup
	began := time.Now()
	for range nodes {
		working.Go(func() {
			session, err := concurrency.NewSession(w.client, concurrency.WithTTL(60))
			if err != nil {
				r.T.Error(err)
				return
			}
			defer session.Close()
			lock := concurrency.NewMutex(session, "/lock"+strings.ReplaceAll(w.key, "/", "-"))
			for range calls / nodes {
				since := began
				if nodes == 1 {
					since = time.Now()
				}
				_, err := w.allocate(ctx, lock)
				mu.Lock()
				if err == nil {
					took = append(took, time.Since(since))
				} else {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	working.Wait()
	return took, failed
}
