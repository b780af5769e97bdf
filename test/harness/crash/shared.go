package crash

import (
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// shared is the part of an etcd that one run uses for pools and leases, and the test's own client of it.
type shared struct {
	store.Store
	setting string // STORE of the process
	proxy   etcdtest.Proxy
}

// openShared opens a relay to the etcd in this thread's network namespace, which has no other connection.
func openShared(etcd *etcdtest.Cluster, name string) (*shared, error) {
	if err := sh("ip link set lo up"); err != nil {
		return nil, err
	}
	proxy, err := etcd.Members[0].Proxy()
	if err != nil {
		return nil, err
	}
	s := &shared{setting: "etcd://" + proxy.Endpoint() + "?prefix=/" + name, proxy: proxy}
	s.Store, err = etcdstore.Open(etcdstore.Config{Endpoints: etcd.Endpoints(), Prefix: "/" + name})
	return s, err
}

// env returns the settings for the process.
func (s *shared) env() []string {
	if s == nil {
		return nil
	}
	return []string{"STORE=" + s.setting}
}

// close closes the relay and the client.
func (s *shared) close() error {
	if s == nil {
		return nil
	}
	s.proxy.Close()
	return s.Store.Close()
}
