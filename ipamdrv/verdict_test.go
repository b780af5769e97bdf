package ipamdrv

import (
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

func TestJudgeHandle(t *testing.T) {
	for _, test := range []struct {
		bound, networkExists, replaced bool
		leases                         int
		want                           verdict
	}{
		{false, false, false, 0, keepUnbound},
		{false, true, false, 0, keepUnbound},
		{false, false, true, 0, keepUnbound},
		{false, true, true, 1, keepUnbound},
		{true, false, false, 0, suspectNoNetwork},
		{true, false, false, 3, suspectNoNetwork},
		{true, false, true, 3, suspectNoNetwork},
		{true, true, false, 0, keepUsed},
		{true, true, false, 3, keepUsed},
		{true, true, true, 3, keepLeases},
		{true, true, true, 0, suspectReplaced},
	} {
		f := handleFacts{test.bound, test.networkExists, test.replaced, test.leases}
		if got := judgeHandle(f); got != test.want {
			t.Errorf("%+v: %q, want %q", f, got, test.want)
		}
	}
}

func TestJudgeLease(t *testing.T) {
	const young, old = gracePeriod - 1, gracePeriod
	for _, test := range []struct {
		lease                  pool.Lease
		userKnown, hasEndpoint bool
		age                    time.Duration
		want                   verdict
	}{
		{pool.Lease{Kind: pool.Any}, true, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Any, Via: "p"}, true, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Any, Via: "p"}, false, false, old, keepLent},
		{pool.Lease{Kind: pool.Any, Via: "p"}, false, false, young, keepLent},
		{pool.Lease{Kind: pool.Any, Via: "p"}, false, true, old, keepEndpoint},
		{pool.Lease{Kind: pool.Any}, true, false, young, keepYoung},
		{pool.Lease{Kind: pool.Any}, true, true, old, keepEndpoint},
		{pool.Lease{Kind: pool.Any}, true, true, young, keepEndpoint},
		{pool.Lease{Kind: pool.Exact, Container: true}, true, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Exact, Name: "c"}, true, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Exact, Name: "c"}, true, true, old, keepEndpoint},
		{pool.Lease{Kind: pool.Exact}, true, false, old, keepNoContainer}, // --aux-address
		{pool.Lease{Kind: pool.Gateway}, true, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Gateway, Name: "c"}, true, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Cooldown, Name: "c"}, true, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Prefetched}, true, false, old, keepNoContainer},
		{pool.Lease{}, true, false, old, keepNoContainer}, // a record without a kind
	} {
		f := leaseFacts{userKnown: test.userKnown, hasEndpoint: test.hasEndpoint, age: test.age, grace: gracePeriod}
		if got := judgeLease(test.lease, f); got != test.want {
			t.Errorf("%+v, %+v: %q, want %q", test.lease, f, got, test.want)
		}
	}
}

func TestGracePeriod(t *testing.T) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		lease *pool.Lease
		want  time.Duration
	}{
		{&pool.Lease{Since: start.Add(-time.Second)}, gracePeriodAfterStart},
		{&pool.Lease{Since: start}, gracePeriod},
		{&pool.Lease{Since: start.Add(time.Second)}, gracePeriod},
		{nil, gracePeriod}, // a handle
	} {
		if got := graceOf(test.lease, start); got != test.want {
			t.Errorf("%+v: %v, want %v", test.lease, got, test.want)
		}
	}
}
