package crash

import (
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// shared is where one life's process has its pools and addresses, in an etcd: a part of it that is the life's alone. It is also
// the test's own view of that.
type shared struct {
	store.Store
	setting string // STORE of the process
	way     etcdtest.Way
}

// openShared makes a way to the etcd from this thread's network namespace, which has no other.
func openShared(etcd *etcdtest.Cluster, name string) (*shared, error) {
	if err := sh("ip link set lo up"); err != nil {
		return nil, err
	}
	way, err := etcd.Members[0].Way()
	if err != nil {
		return nil, err
	}
	s := &shared{setting: "etcd://" + way.Endpoint() + "?prefix=/" + name, way: way}
	s.Store, err = etcdstore.Open(etcdstore.Config{Endpoints: etcd.Endpoints(), Prefix: "/" + name})
	return s, err
}

// env is what the process is told of it.
func (s *shared) env() []string {
	if s == nil {
		return nil
	}
	return []string{"STORE=" + s.setting}
}

// close ends the way and the view.
func (s *shared) close() error {
	if s == nil {
		return nil
	}
	s.way.End()
	return s.Store.Close()
}
