package bench

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// The rows of the table of ratios, see docs/performance.md. Each iteration is a round in which both sides of the ratio are measured one after
// the other, so that what else the machine does changes both.

// times are how long the operations of one side took.
type times []time.Duration

// at returns the duration that a share of the operations did not exceed.
func (t times) at(share float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	slices.SortFunc(t, cmp.Compare[time.Duration])
	return t[min(int(share*float64(len(t))), len(t)-1)]
}

// atOnce is how many requests the rows of parallel work make at once.
const atOnce = 64

// BenchmarkP5 compares 64 durable writes at once with writes one after another: transactions of the store, and addresses that are taken and given
// back in one pool. faster is how many times as many are made in a second, p99/p50 what the slowest of them wait beside one that is alone.
func BenchmarkP5(b *testing.B) {
	b.Run("transactions", func(b *testing.B) {
		s := openLedger(b)
		atOnceAndInTurn(b, func(worker int) error {
			_, err := s.Txn(context.Background(), nil, []store.Op{store.Put(fmt.Sprint("k", worker), make([]byte, 200))})
			return err
		})
	})
	for _, pools := range []int{1, atOnce} {
		b.Run(fmt.Sprintf("addresses of %d pools", pools), func(b *testing.B) {
			d := on(b, openLedger(b))
			var all []ours
			for range pools {
				all = append(all, poolOf(b, d, "10.0.0.0/16"))
			}
			atOnceAndInTurn(b, func(worker int) error {
				from := all[worker%pools]
				a, err := from.take()
				if err == nil {
					err = from.give(a)
				}
				return err
			})
		})
	}
}

// openLedger opens a new ledger on the disk.
func openLedger(b *testing.B) store.Store {
	b.Helper()
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// poolOf makes a pool.
func poolOf(b *testing.B, d *ipamdrv.Driver, subnet string) ours {
	b.Helper()
	r, err := d.RequestPool(context.Background(), &ipam.RequestPoolRequest{Pool: subnet})
	if err != nil {
		b.Fatal(err)
	}
	return ours{driver: d, pool: r.PoolID}
}

// atOnceAndInTurn measures an operation in turn and at once.
func atOnceAndInTurn(b *testing.B, op func(worker int) error) {
	const each = 8
	var alone, busy times
	var turn, together time.Duration
	for b.Loop() {
		start := time.Now()
		for worker := range atOnce {
			begin := time.Now()
			if err := op(worker); err != nil {
				b.Fatal(err)
			}
			alone = append(alone, time.Since(begin))
		}
		turn += time.Since(start)

		var mu sync.Mutex // guards busy
		var wg sync.WaitGroup
		start = time.Now()
		for worker := range atOnce {
			wg.Go(func() {
				var own times
				for range each {
					begin := time.Now()
					if err := op(worker); err != nil {
						b.Error(err)
					}
					own = append(own, time.Since(begin))
				}
				mu.Lock()
				defer mu.Unlock()
				busy = append(busy, own...)
			})
		}
		wg.Wait()
		together += time.Since(start)
	}
	inTurn, atOnce := float64(len(alone))/turn.Seconds(), float64(len(busy))/together.Seconds()
	b.ReportMetric(atOnce/inTurn, "times-faster")
	b.ReportMetric(float64(busy.at(0.99))/float64(alone.at(0.5)), "p99/p50")
	b.ReportMetric(inTurn, "in-turn/s")
	b.ReportMetric(atOnce, "at-once/s")
	b.ReportMetric(alone.at(0.5).Seconds()*1000, "in-turn-p50-ms")
	b.ReportMetric(alone.at(0.99).Seconds()*1000, "in-turn-p99-ms")
	b.ReportMetric(busy.at(0.5).Seconds()*1000, "at-once-p50-ms")
	b.ReportMetric(busy.at(0.99).Seconds()*1000, "at-once-p99-ms")
	b.ReportMetric(0, "ns/op")
}
