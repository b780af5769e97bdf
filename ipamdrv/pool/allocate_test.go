package pool_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// TestAllocationOrder: which addresses are allocated, in which order, until the pool is full.
func TestAllocationOrder(t *testing.T) {
	const remove = "remove a container, or create the network with a larger "
	tests := []struct {
		name, subnet, within string
		gateway              string // "-": none, "": an invented one
		want                 []string
		full                 string // error after want, "" when there is more
	}{
		{"the router's is kept", "10.1.0.0/24", "", "-", []string{"10.1.0.2/24", "10.1.0.3/24"}, ""},
		{"behind the gateway", "10.1.0.0/24", "", "10.1.0.1", []string{"10.1.0.2/24", "10.1.0.3/24"}, ""},
		{"around the gateway", "10.1.0.0/24", "", "10.1.0.2", []string{"10.1.0.1/24", "10.1.0.3/24"}, ""},
		{"invented gateway", "10.1.0.0/24", "", "", []string{"10.1.0.2/24", "10.1.0.3/24"}, ""},
		{"smallest that keeps", "10.1.0.0/29", "", "-",
			[]string{"10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29", "10.1.0.6/29"},
			"all 5 addresses are in use; " + remove +
				"--subnet; 10.1.0.1 is kept for a router, a container can have it with --ip"},
		{"too small to keep", "10.1.0.0/30", "", "-", []string{"10.1.0.1/30", "10.1.0.2/30"},
			"all 2 addresses are in use; " + remove + "--subnet"},
		{"two addresses", "10.1.0.0/31", "", "-", []string{"10.1.0.0/31", "10.1.0.1/31"},
			"all 2 addresses are in use; " + remove + "--subnet"},
		{"two addresses and a gateway", "10.1.0.0/31", "", "10.1.0.0", []string{"10.1.0.1/31"},
			"all 2 addresses are in use, 10.1.0.0 as the gateway; " + remove + "--subnet"},
		{"two addresses and an invented gateway", "10.1.0.0/31", "", "", []string{"10.1.0.1/31"},
			"all 2 addresses are in use, 10.1.0.0 as a gateway that the engine requested; " + remove +
				"--subnet or with --ipam-opt gateway=none"},
		{"one address, which is an invented gateway", "fd00::5/128", "", "", nil,
			"the one address is in use, fd00::5 as a gateway that the engine requested; create the " +
				"network with a larger --subnet or with --ipam-opt gateway=none"},
		{"one address", "10.1.0.7/32", "", "-", []string{"10.1.0.7/32"},
			"the one address is in use; " + remove + "--subnet"},
		{"host bits", "10.1.0.7/24", "10.1.0.130/25", "10.1.0.1", []string{"10.1.0.128/24", "10.1.0.129/24"}, ""},
		{"range at the end", "10.1.0.0/24", "10.1.0.252/30", "-", []string{"10.1.0.252/24", "10.1.0.253/24", "10.1.0.254/24"},
			"all 3 addresses of ip-range 10.1.0.252/30 are in use; " + remove + "--ip-range"},
		{"range at the start", "10.1.0.0/24", "10.1.0.0/30", "-", []string{"10.1.0.2/24", "10.1.0.3/24"},
			"all 2 addresses of ip-range 10.1.0.0/30 are in use; " + remove +
				"--ip-range; 10.1.0.1 is kept for a router, a container can have it with --ip"},
		{"range of the router's alone", "10.1.0.0/24", "10.1.0.1/32", "-", []string{"10.1.0.1/24"},
			"the one address of ip-range 10.1.0.1/32 is in use; " + remove + "--ip-range"},
		{"range of the router's and the network's", "10.1.0.0/24", "10.1.0.0/31", "-", []string{"10.1.0.1/24"},
			"the one address of ip-range 10.1.0.0/31 is in use; " + remove + "--ip-range"},
		{"gateway is the range", "10.1.0.0/24", "10.1.0.9/32", "10.1.0.9", nil,
			"the one address of ip-range 10.1.0.9/32 is in use, 10.1.0.9 as the gateway; create the " +
				"network with a larger --ip-range"},
		{"gateway outside the range", "10.1.0.0/24", "10.1.0.64/26", "10.1.0.200", []string{"10.1.0.64/24"}, ""},
		{"large", "10.0.0.0/8", "10.255.255.252/30", "-",
			[]string{"10.255.255.252/8", "10.255.255.253/8", "10.255.255.254/8"},
			"all 3 addresses of ip-range 10.255.255.252/30 are in use; " + remove +
				"--ip-range"},
		{"gateway as IPv6", "10.1.0.0/24", "10.1.0.128/25", "::ffff:10.1.0.1", []string{"10.1.0.128/24"}, ""},

		{"IPv6", "fd00:1::/64", "", "-", []string{"fd00:1::2/64", "fd00:1::3/64"}, ""},
		{"IPv6 as written by hand", "FD00:0001:0::/64", "", "fd00:1:0::0001", []string{"fd00:1::2/64"}, ""},
		{"IPv6 of eight", "fd00::/125", "", "-",
			[]string{"fd00::2/125", "fd00::3/125", "fd00::4/125", "fd00::5/125", "fd00::6/125", "fd00::7/125"},
			"all 6 addresses are in use; " + remove +
				"--subnet; fd00::1 is kept for a router, a container can have it with --ip6"},
		{"IPv6 of four", "fd00::/126", "", "-", []string{"fd00::1/126", "fd00::2/126", "fd00::3/126"},
			"all 3 addresses are in use; " + remove + "--subnet"},
		{"IPv6 of two", "fd00::/127", "", "-", []string{"fd00::/127", "fd00::1/127"},
			"all 2 addresses are in use; " + remove + "--subnet"},
		{"IPv6 of one", "fd00::5/128", "", "-", []string{"fd00::5/128"},
			"the one address is in use; " + remove + "--subnet"},
		{"more than 2^64", "fd00:1::/48", "", "-", []string{"fd00:1::2/48", "fd00:1::3/48"}, ""},
		{"range above 2^64", "fd00:1::/48", "fd00:1:0:ffff:ffff:ffff:ffff:fffe/127", "-",
			[]string{"fd00:1:0:ffff:ffff:ffff:ffff:fffe/48", "fd00:1:0:ffff:ffff:ffff:ffff:ffff/48"},
			"all 2 addresses of ip-range fd00:1:0:ffff:ffff:ffff:ffff:fffe/127 are in use; " +
				remove + "--ip-range"},
		{"range of 2^64", "fd00:1::/32", "fd00:1:5::/64", "", []string{"fd00:1:5::/32", "fd00:1:5::1/32"}, ""},
		{"range of more than 2^64", "fd00:1::/32", "fd00:1:8000::/33", "", []string{"fd00:1:8000::/32"}, ""},
		{"half of all", "8000::/1", "", "-", []string{"8000::2/1"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			withPool(t, test.subnet, test.within, nil, func(f *fixture) {
				if test.gateway != "-" {
					if _, err := f.request(pool.Gateway, test.gateway, ""); err != nil {
						t.Fatal(err)
					}
				}
				for _, want := range test.want {
					f.gives(pool.Any, "", "", want)
				}
				if test.full == "" {
					return
				}
				f.restart()
				f.refuses(pool.Any, "", pool.ErrFull, test.full)
				for _, full := range test.want { // the released address is the next one
					addr, _, _ := strings.Cut(full, "/")
					f.release(addr)
					f.gives(pool.Any, "", "", full)
				}
			})
		})
	}
}

// TestRouterReserved: without a gateway the router's address is not allocated while others are free; a container can request it.
func TestRouterReserved(t *testing.T) {
	withPool(t, "10.99.0.0/29", "", nil, func(f *fixture) {
		for _, want := range []string{"10.99.0.2/29", "10.99.0.3/29", "10.99.0.4/29", "10.99.0.5/29", "10.99.0.6/29"} {
			f.gives(pool.Any, "", "", want)
		}
		f.gives(pool.Exact, "10.99.0.1", "", "10.99.0.1/29")
		f.refuses(pool.Any, "", pool.ErrFull, "all 6 addresses are in use; "+
			"remove a container, or create the network with a larger --subnet")
		f.release("10.99.0.1")
		f.release("10.99.0.4")
		f.gives(pool.Any, "", "", "10.99.0.4/29")
		f.release("10.99.0.4")
		f.gives(pool.Gateway, "10.99.0.4", "", "10.99.0.4/29")
		f.gives(pool.Any, "", "", "10.99.0.1/29") // with a gateway the first address is like any other
	})
}
