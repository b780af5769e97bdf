package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spaceTimeout bounds FillUp and MakeSpace.
const spaceTimeout = time.Minute

// filler is the prefix of the keys that FillUp writes.
const filler = "filler/"

// FillUp writes to etcd until it refuses writes because its quota is used up. Start it with --quota-backend-bytes, of 100 MiB at most.
func (c *Cluster) FillUp() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), spaceTimeout)
	defer cancel()
	client := c.Client(c.t)
	for i := range 100 {
		_, err := client.Put(ctx, fmt.Sprintf("%s%d", filler, i), strings.Repeat("x", 1<<20))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("etcd has taken 100 MiB")
}

// MakeSpace does what an operator does after FillUp: it deletes what is not needed, compacts and defragments each member, and disarms the alarm.
func (c *Cluster) MakeSpace() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), spaceTimeout)
	defer cancel()
	client := c.Client(c.t)
	r, err := client.Delete(ctx, filler, clientv3.WithPrefix())
	if err == nil {
		_, err = client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	}
	for _, member := range c.Direct() {
		if err == nil {
			_, err = client.Defragment(ctx, c.scheme()+member)
		}
	}
	if err == nil {
		_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}
