package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/mellanox/passthrough/store"
)

const (
	workers = 6
	rounds  = 10
)

// testConcurrentSwap lets workers increment one counter by compare-and-swap: no increment is lost or made twice, and every transaction has a
// revision of its own.
func testConcurrentSwap(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("counter", []byte("0")))

	var mu sync.Mutex // guards revs
	revs := map[int64]bool{}
	parallel(t, func(int) error {
		for range rounds {
			rev, err := increment(t.Context(), s, "counter")
			if err != nil {
				return err
			}
			mu.Lock()
			if revs[rev] {
				err = fmt.Errorf("two transactions have revision %d", rev)
			}
			revs[rev] = true
			mu.Unlock()
			if err != nil {
				return err
			}
		}
		return nil
	})
	wantAll(t, s, "counter", "counter="+strconv.Itoa(workers*rounds))
}

// increment adds one to the number in key. It tries until no other worker is faster.
func increment(ctx context.Context, s store.Store, key string) (int64, error) {
	for {
		kv, err := s.Get(ctx, key)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return 0, err
		}
		r, err := s.Txn(ctx, []store.Cond{store.Unchanged(kv)}, []store.Op{store.Put(key, fmt.Append(nil, n+1))})
		if err != nil || r.OK {
			return r.Rev, err
		}
	}
}

// testRangeConsistent lets some workers write two records with equal values while others read them: no Range shows different values.
func testRangeConsistent(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("pair/a", []byte("0")), store.Put("pair/z", []byte("0")))
	parallel(t, func(worker int) error {
		for i := range rounds {
			if worker%2 == 0 {
				v := fmt.Appendf(nil, "%d.%d", worker, i)
				ops := []store.Op{store.Put("pair/a", v), store.Put("pair/z", v), store.Put("pair/m", v)}
				if _, err := s.Txn(t.Context(), nil, ops); err != nil {
					return err
				}
				continue
			}
			if err := sameValue(t.Context(), s); err != nil {
				return err
			}
		}
		return nil
	})
}

// sameValue checks that all records of the pair are equal in one Range.
func sameValue(ctx context.Context, s store.Store) error {
	var values []string
	err := s.Range(ctx, "pair/", func(kv store.KV) error {
		values = append(values, string(kv.Value))
		return nil
	})
	for _, v := range values {
		if v != values[0] {
			return fmt.Errorf("one Range shows %q", values)
		}
	}
	return err
}

// parallel runs work in several goroutines and reports their errors.
func parallel(t *testing.T, work func(worker int) error) {
	t.Helper()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = work(w) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}
