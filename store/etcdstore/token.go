package etcdstore

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tokenTTL is the TTL in seconds of the etcd lease of tokens. It is used for half of that time, and far longer than any call takes: a
// request that is still in flight fails once the lease of its token has ended.
const tokenTTL = 600

// tokenLease is the etcd lease of the tokens of transactions. It is not kept alive: when half of its time has passed, a new one is granted.
type tokenLease struct {
	mu    sync.Mutex       // guards the fields below
	id    clientv3.LeaseID // 0 for none
	since time.Time
}

// get returns the lease, and has a new one granted if there is none or it is old.
func (l *tokenLease) get(ctx context.Context, r *retrier) (clientv3.LeaseID, error) {
	l.mu.Lock()
	id, fresh := l.id, time.Since(l.since) < tokenTTL*time.Second/2
	l.mu.Unlock()
	if id != 0 && fresh {
		return id, nil
	}
	since := time.Now()
	_, err := r.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Grant(ctx, tokenTTL)
		if err == nil {
			id = resp.ID
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id, l.since = id, since
	return id, nil
}

// drop drops a lease that etcd does not know, as after a suspend of this host.
func (l *tokenLease) drop(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		l.id = 0
	}
}
