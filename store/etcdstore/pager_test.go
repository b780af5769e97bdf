package etcdstore

import (
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestPagerIsLinear: all records are read once, in order, and what etcd counts for that does not grow faster than their number. The keys are in
// a slice, and counted as etcd does.
func TestPagerIsLinear(t *testing.T) {
	for _, c := range []struct {
		name   string
		format func(i int) string
	}{
		{"IPv4, dense", func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255) }},
		{"IPv4, sparse", func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i*41>>16&255, i*41>>8&255, i*41&255) }},
		{"IPv6", func(i int) string { return fmt.Sprintf("fd00::%x:%x", i>>16, i&0xffff) }},
		{"no structure", func(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9E3779B97F4A7C15) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var perKey []float64
			k, all := keyspace("/p"), make([]string, 200_000)
			prefix := k.record("ipam/lease/x/")
			for i := range all {
				all[i] = prefix + c.format(i)
			}
			for _, n := range []int{1, 999, 1000, 1001, 50_000, len(all)} {
				counted, requests, most := readAll(t, k, slices.Sorted(slices.Values(all[:n])))
				perKey = append(perKey, float64(counted)/float64(n))
				if n > 10*pageSize && most > 2 { // nodes that join make these at the same time
					t.Errorf("%d records: %d of the first requests have nearly all of them counted", n, most)
				}
				if requests > 3*n/pageSize+30 {
					t.Errorf("%d records: %d requests", n, requests)
				}
			}
			small, large := perKey[len(perKey)-2], perKey[len(perKey)-1]
			if large > 12 || large > 2*small+4 {
				t.Errorf("etcd counts %.1f keys for each record of 50,000 and %.1f for each of 200,000", small, large)
			}
		})
	}
}

// readAll reads records with these keys, and returns how many keys were counted in how many requests, and in how many of the first five
// more than three quarters of all.
func readAll(t *testing.T, k keyspace, keys []string) (counted, requests, most int) {
	t.Helper()
	n, read := len(keys), 0
	all := slices.Concat([]string{k.record("ipam/lease/w/10.0.0.1")}, keys, []string{k.record("ipam/lease/y/10.0.0.1")})
	for p := k.pager("ipam/lease/x/"); !p.done; requests++ {
		lo, _ := slices.BinarySearch(all, p.from)
		hi, _ := slices.BinarySearch(all, p.end())
		resp := &pb.RangeResponse{Count: int64(hi - lo), More: hi-lo > pageSize}
		for _, key := range all[lo:min(hi, lo+pageSize)] {
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(key)})
			if read == n || key != keys[read] {
				t.Fatalf("read %s after %d records of %d", key, read, n)
			}
			read++
		}
		counted += hi - lo
		if requests < 5 && (hi-lo)*4 > n*3 {
			most++
		}
		p.advance((*clientv3.GetResponse)(resp))
		if requests > 10*n {
			t.Fatal("it does not end")
		}
	}
	if read != n {
		t.Fatalf("read %d records of %d", read, n)
	}
	return counted, requests, most
}
