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
		lease       pool.Lease
		hasEndpoint bool
		age         time.Duration
		want        verdict
	}{
		{pool.Lease{Kind: pool.Any}, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Any}, false, young, keepYoung},
		{pool.Lease{Kind: pool.Any}, true, old, keepEndpoint},
		{pool.Lease{Kind: pool.Any}, true, young, keepEndpoint},
		{pool.Lease{Kind: pool.Exact, Container: true}, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Exact, Name: "c"}, false, old, suspectNoEndpoint},
		{pool.Lease{Kind: pool.Exact, Name: "c"}, true, old, keepEndpoint},
		{pool.Lease{Kind: pool.Exact}, false, old, keepNoContainer}, // --aux-address
		{pool.Lease{Kind: pool.Gateway}, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Gateway, Name: "c"}, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Cooldown, Name: "c"}, false, old, keepNoContainer},
		{pool.Lease{Kind: pool.Prefetched}, false, old, keepNoContainer},
		{pool.Lease{}, false, old, keepNoContainer}, // a record without a kind
	} {
		if got := judgeLease(test.lease, test.hasEndpoint, test.age, gracePeriod); got != test.want {
			t.Errorf("%+v, endpoint %v, %v old: %q, want %q", test.lease, test.hasEndpoint, test.age, got, test.want)
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
