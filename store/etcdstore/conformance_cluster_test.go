//go:build cluster

package etcdstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/storetest"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// mustOpenEtcd opens a store.
func mustOpenEtcd(t *testing.T, c etcdstore.Config) store.Store {
	t.Helper()
	s, err := etcdstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestConformance runs the conformance suite on one real server, each test under a prefix of its own.
func TestConformance(t *testing.T) {
	c := etcdtest.Start(t, 1)
	var parts atomic.Int64
	fresh := func(*testing.T) storetest.Opener {
		prefix := fmt.Sprintf("/part%d", parts.Add(1))
		return func(t *testing.T) store.Store {
			return mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: prefix})
		}
	}
	storetest.Run(t, fresh)
	t.Run("watch", func(t *testing.T) { storetest.RunWatcher(t, fresh) })
}
