package pool_test

import (
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store/storetest"
)

// TestUnknownFields: an older node keeps what a newer one has added to a record.
func TestUnknownFields(t *testing.T) {
	storetest.KeepsUnknown[pool.Record](t, pool.Versions)
	storetest.KeepsUnknown[pool.ShareRecord](t, pool.Versions)
	storetest.KeepsUnknown[pool.Lease](t, pool.Versions)
	storetest.KeepsUnknown[pool.Op](t, pool.Versions)
}

// Records whose fields are not listed.
type (
	plainRecord pool.Record
	plainLease  pool.Lease
)

func TestListedFields(t *testing.T) {
	storetest.WritesAsJSON[pool.Record, plainRecord](t)
	storetest.WritesAsJSON[pool.Lease, plainLease](t)
}

// FuzzListedFields: whatever the records are, they are read and written as package json does it.
func FuzzListedFields(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		storetest.ReadsAsJSON[pool.Record, plainRecord](t, pool.Versions, raw)
		storetest.ReadsAsJSON[pool.Lease, plainLease](t, pool.Versions, raw)
	})
}
