package addr_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/addr"
)

// BenchmarkBitmap finds a free number behind the one before, takes it and gives it back, as the choice of an address does. It
// must cost the same however large the pool is and however full; words says what it keeps in memory.
func BenchmarkBitmap(b *testing.B) {
	for _, bits := range []int{8, 16, 24} {
		for _, percent := range []uint64{1, 50, 99} {
			b.Run(fmt.Sprintf("2^%d/%d%%", bits, percent), func(b *testing.B) {
				s, size := addr.NewBitmap(), uint64(1)<<bits
				rnd := rand.New(rand.NewPCG(1, 2))
				for x := range size {
					if rnd.Uint64N(100) < percent {
						s.Add(x)
					}
				}
				last := uint64(0)
				for b.Loop() {
					x, ok := s.NextFree(last, size-1)
					if !ok {
						if x, ok = s.NextFree(0, last); !ok {
							b.Fatal("full")
						}
					}
					s.Add(x)
					s.Remove(x)
					last = x + 1
				}
				b.ReportMetric(float64(s.Words()), "words")
			})
		}
	}
}
