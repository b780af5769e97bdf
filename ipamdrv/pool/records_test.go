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
