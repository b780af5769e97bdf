package etcdstore

import (
	"time"

	"github.com/mellanox/passthrough/store"
)

// ForgetSchema makes the next call read the schema again.
func ForgetSchema(s store.Store) {
	c := s.(*etcd).conn
	_ = c.mu.Acquire(c.ctx, 1) // it ends with the store only
	defer c.mu.Release(1)
	c.schema.read = time.Time{}
}
