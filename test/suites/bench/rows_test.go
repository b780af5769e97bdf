package bench

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// The rows of a table of ratios. Each iteration is a round in which both sides of the ratio are measured one after
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

// BenchmarkP4 compares taking an address and giving it back with libnetwork's own allocator, in RAM. times-libnetwork is the ratio of the medians.
// The pools of another size have as many addresses taken: the cost must not grow with a pool, and libnetwork's cannot be filled so far.
func BenchmarkP4(b *testing.B) {
	for _, c := range []struct {
		pool  string
		taken int // percent
	}{{"10.0.0.0/20", 0}, {"10.0.0.0/16", 50}, {"10.0.0.0/16", 99}} {
		prefix := netip.MustParsePrefix(c.pool)
		size := 1<<(32-prefix.Bits()) - 3
		b.Run(fmt.Sprintf("%s/%d%%", c.pool, c.taken), func(b *testing.B) {
			n := size * c.taken / 100
			ours, theirs := sideBySide(b, openMemory(b, prefix, n, size), openLibnetwork(b, prefix, n, size))
			b.ReportMetric(float64(ours.at(0.5))/float64(theirs.at(0.5)), "times-libnetwork")
			report(b, "ours", ours)
			report(b, "libnetwork", theirs)
		})
	}
	for _, pool := range []string{"10.0.0.0/8", "fd00::/64"} {
		b.Run(pool+" beside a 24", func(b *testing.B) {
			const n = 100
			large, small := sideBySide(b, openMemory(b, netip.MustParsePrefix(pool), n, n), openMemory(b, netip.MustParsePrefix("10.0.0.0/24"), n, n))
			b.ReportMetric(float64(large.at(0.5))/float64(small.at(0.5)), "times-24")
			report(b, "large", large)
			report(b, "24", small)
		})
	}
	b.Run("memory of a million leases", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(bitmapOf(1_000_000))/1e6, "MB")
		}
		b.ReportMetric(0, "ns/op")
	})
}

// sideBySide takes and gives back addresses of two allocators in turns.
func sideBySide(b *testing.B, one, other addresses) (ones, others times) {
	for b.Loop() {
		for range 100 {
			start := time.Now()
			cycle(b, one)
			between := time.Now()
			cycle(b, other)
			ones, others = append(ones, between.Sub(start)), append(others, time.Since(between))
		}
	}
	b.ReportMetric(0, "ns/op")
	return ones, others
}

// report reports the median and the slowest of a hundred.
func report(b *testing.B, side string, t times) {
	b.ReportMetric(float64(t.at(0.5).Nanoseconds())/1000, side+"-p50-us")
	b.ReportMetric(float64(t.at(0.99).Nanoseconds())/1000, side+"-p99-us")
}

// bitmapOf returns how many bytes a pool needs for n leases, every second of its addresses.
func bitmapOf(n uint64) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	taken := addr.NewBitmap()
	for i := range n {
		taken.Add(2 * i)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(taken)
	return after.HeapAlloc - before.HeapAlloc
}
