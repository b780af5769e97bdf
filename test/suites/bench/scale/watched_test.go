package scale

import (
	"context"

	"github.com/mellanox/passthrough/store"
)

// Watch implements [store.Watcher].
func (c *counted) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	return store.Watch(ctx, c.Store, prefix, rev, func(changes store.Changes) error {
		c.told.Add(int64(len(changes.Events)))
		return fn(changes)
	})
}

// Pages implements [store.Watcher].
func (c *counted) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	err := store.Pages(ctx, c.Store, prefix, func(rev int64, page []store.KV) error {
		c.count(len(page))
		return fn(rev, page)
	})
	c.end(prefix, err)
	return err
}
