package ipamdrv_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// TestDryRun: a dry run answers as the driver does, refuses what it refuses, and changes neither the node's own ledger nor one that nodes
// share. Two requests of one dry run know of each other.
func TestDryRun(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (*ipamdrv.Driver, []store.Store){
		"own": func(t *testing.T) (*ipamdrv.Driver, []store.Store) {
			s := store.NewMemory()
			return newDriver(t, s), []store.Store{s}
		},
		"shared": func(t *testing.T) (*ipamdrv.Driver, []store.Store) {
			n := newNode(t, store.NewMemory())
			return n.d, []store.Store{n.own, n.shared}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, stores := open(t)
				lan := map[string]string{"pool": "lan"}
				if _, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.1.0.0/29", Options: lan}); err != nil {
					t.Fatal(err)
				}
				var before []string
				for _, s := range stores {
					before = append(before, records(t, s))
				}
				dry, err := d.DryRun()
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range []struct {
					pool, gateway string
					options       map[string]string
					want          string
				}{
					{"10.2.0.0/29", "10.2.0.1", nil, "10.2.0.1/29"},
					{"10.2.0.0/29", "", nil, "10.2.0.1/29"},
					{"10.1.0.0/29", "", lan, "10.1.0.1/29"},
					{"10.1.0.0/28", "", lan, `pool 10.1.0.0/28: request: pool "lan" has subnet 10.1.0.0/29; networks that share a pool must say the same of it`},
					{"10.3.0.0/29", "10.4.0.1", nil, "pool 10.3.0.0/29: request gateway 10.4.0.1: not in the subnet"},
					{"10.3.0.0/29", "", map[string]string{"gateway": "10.3.0.7"}, "request pool: ipam option gateway: 10.3.0.7 is the subnet's broadcast address"},
				} {
					if got := ask(t.Context(), dry, c.pool, c.gateway, c.options); got != c.want {
						t.Errorf("%s, gateway %q, %s:\n%s\nwant %s", c.pool, c.gateway, c.options, got, c.want)
					}
				}
				dry.Close()
				for i, s := range stores {
					if diff := cmp.Diff(before[i], records(t, s)); diff != "" {
						t.Errorf("a dry run changed a store:\n%s", diff)
					}
				}
			})
		})
	}
}

// ask requests a pool and its gateway, and returns the gateway or the error.
func ask(ctx context.Context, d *ipamdrv.Driver, subnet, gateway string, options map[string]string) string {
	p, err := d.RequestPool(ctx, &ipam.RequestPoolRequest{Pool: subnet, Options: options})
	if err != nil {
		return err.Error()
	}
	a, err := d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: p.PoolID, Address: gateway, Options: asGateway})
	if err != nil {
		return err.Error()
	}
	return a.Address
}

// records returns all that is in a store, a line for each record.
func records(t *testing.T, s store.Store) string {
	t.Helper()
	var b strings.Builder
	err := s.Range(t.Context(), "", func(kv store.KV) error {
		b.WriteString(kv.Key + " " + string(kv.Value) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
