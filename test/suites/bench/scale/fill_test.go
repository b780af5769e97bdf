package scale

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/record"
)

// filled is a pool that is filled with leases of one node's network, in a random order, so that the holes are at random, too.
type filled struct {
	handle string
	order  []uint32 // all addresses of the pool that can be given
	done   int      // how many of them are leased
}

// newFilled begins to fill the pool with this handle.
func newFilled(subnet netip.Prefix, handle string) *filled {
	first := binary.BigEndian.Uint32(subnet.Addr().AsSlice())
	f := &filled{handle: handle}
	for i := uint32(2); i < 1<<(32-subnet.Bits())-1; i++ { // without the network, the router's and the broadcast address
		f.order = append(f.order, first+i)
	}
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	rng.Shuffle(len(f.order), func(i, j int) { f.order[i], f.order[j] = f.order[j], f.order[i] })
	return f
}

// addr is the address with a number.
func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// fillBatch is how many leases are written with one transaction.
const fillBatch = 3000

// to fills the pool to a percentage, straight into etcd, in the form in which the product writes it. No node may have leases meanwhile.
func (f *filled) to(r *run, percent int) {
	r.T.Helper()
	want := len(f.order) * percent / 100
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: r.etcd.Direct(), Prefix: r.prefix})
	if err != nil {
		r.T.Fatal(err)
	}
	defer s.Close()
	h, _ := pool.ParseHandle(f.handle)
	var writing errgroup.Group
	writing.SetLimit(2)
	for f.done < want {
		batch := f.order[f.done:min(f.done+fillBatch, want)]
		f.done += len(batch)
		writing.Go(func() error {
			var ops []store.Op
			for _, n := range batch {
				op, err := record.Put(pool.LeaseKey(h.ID, addr(n)), lease(h.Share, n))
				if err != nil {
					return err
				}
				ops = append(ops, op)
			}
			notInTime := func(err error) bool {
				return errors.Is(err, store.ErrAmbiguous) || errors.Is(err, store.ErrUnavailable)
			}
			return retry.Times(5, notInTime, func() error { // a megabyte for each of three members on one disk
				_, err := s.Txn(r.T.Context(), nil, ops)
				return err
			})
		})
	}
	if err := writing.Wait(); err != nil {
		r.T.Fatal(err)
	}
}

// lease is the lease of a container of a swarm service.
func lease(share string, n uint32) pool.Lease {
	return pool.Lease{V: pool.RecordVersion, Kind: pool.Any, Name: fmt.Sprintf("web.%d.%s", n, strings.ToLower(rand.Text())[:25]),
		Since: time.Now().UTC(), Token: rand.Text(), Holders: []string{share}}
}
