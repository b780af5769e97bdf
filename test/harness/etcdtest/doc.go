// Package etcdtest gives tests an etcd of their own: real servers, as processes that can be killed, stopped and started
// again, each behind a relay that can be cut.
package etcdtest
