//go:build cluster

package cluster_test

import (
	"errors"
	"testing"

	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// TestCopiedDiskOnEtcd is TestCopiedDisk on a real server.
func TestCopiedDiskOnEtcd(t *testing.T) {
	shared, err := etcdstore.Open(etcdstore.Config{Endpoints: etcdtest.Start(t, 1).Endpoints(), Prefix: "/copied"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(err, shared.Close()); err != nil {
			t.Error(err)
		}
	}()
	storyOfCopiedDisk(t, shared)
}
