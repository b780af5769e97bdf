package load

import (
	"strings"
	"testing"
)

// TestGrown: random differences between rounds are not growth, and a leak in each round is.
func TestGrown(t *testing.T) {
	first := usage{Goroutines: 13, Descriptors: 20, Threads: 9, HeapBytes: 1 << 20, ResidentKiB: 22 << 10, LedgerSize: 128 << 10, Records: 3}
	for name, c := range map[string]struct {
		change func(*usage)
		want   string
	}{
		"nothing":           {func(*usage) {}, ""},
		"less":              {func(u *usage) { u.Goroutines, u.HeapBytes, u.LedgerSize = 9, 1<<19, 64<<10 }, ""},
		"random":            {func(u *usage) { u.Goroutines, u.Descriptors, u.HeapBytes, u.LedgerSize = 17, 22, 3<<19, 256<<10 }, ""},
		"a goroutine each":  {func(u *usage) { u.Goroutines += 25 }, "goroutines and descriptors grow"},
		"a descriptor each": {func(u *usage) { u.Descriptors += 25 }, "goroutines and descriptors grow"},
		"heap":              {func(u *usage) { u.HeapBytes += 2 << 20 }, "memory grows"},
		"resident":          {func(u *usage) { u.ResidentKiB += 32 << 10 }, "memory grows"},
		"a record":          {func(u *usage) { u.Records++ }, "the ledger grows"},
		"the file":          {func(u *usage) { u.LedgerSize *= 4 }, "the ledger grows"},
	} {
		last := first
		c.change(&last)
		if got := strings.Join(growth(first, last), ", "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
