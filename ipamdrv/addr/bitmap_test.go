package addr_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/mellanox/passthrough/ipamdrv/addr"
)

// regions are where a model of the whole 64 bits is looked at: around the borders of words of every level and at both
// ends. Each is [from, from+span).
const span = 200

func regions() []uint64 {
	starts := []uint64{0, math.MaxUint64 - span + 1}
	for shift := 6; shift < 64; shift += 6 {
		starts = append(starts, 1<<shift-span/2, 1<<63+1<<shift-span/2)
	}
	return starts
}

// The set does what a map does, at every border.
func TestBitmapAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := addr.NewBitmap(), map[uint64]bool{}
		from := rapid.SampledFrom(regions()).Draw(t, "region")
		number := rapid.Custom(func(t *rapid.T) uint64 { return from + rapid.Uint64Range(0, span-1).Draw(t, "x") })
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				x := number.Draw(t, "x")
				if got, want := s.Add(x), !model[x]; got != want {
					t.Fatalf("add(%d) = %v, want %v", x, got, want)
				}
				model[x] = true
			},
			"fill": func(t *rapid.T) { // runs make words full
				lo := number.Draw(t, "lo")
				hi := lo + min(rapid.Uint64Range(0, 130).Draw(t, "n"), from+span-1-lo)
				for x := lo; ; x++ {
					s.Add(x)
					model[x] = true
					if x == hi {
						break
					}
				}
			},
			"remove": func(t *rapid.T) {
				x := number.Draw(t, "x")
				if got, want := s.Remove(x), model[x]; got != want {
					t.Fatalf("remove(%d) = %v, want %v", x, got, want)
				}
				delete(model, x)
			},
			"free": func(t *rapid.T) {
				lo, hi := number.Draw(t, "lo"), number.Draw(t, "hi")
				x, ok := s.NextFree(lo, hi)
				want, wantOK := modelFree(model, lo, hi)
				if ok != wantOK || (ok && x != want) {
					t.Fatalf("free(%d, %d) = %d, %v, want %d, %v", lo, hi, x, ok, want, wantOK)
				}
			},
			"": func(t *rapid.T) {
				if s.Len() != uint64(len(model)) {
					t.Fatalf("%d numbers, want %d", s.Len(), len(model))
				}
				x := number.Draw(t, "x")
				if s.Has(x) != model[x] {
					t.Fatalf("has(%d) = %v, want %v", x, s.Has(x), model[x])
				}
			},
		})
		for x := range model {
			s.Remove(x)
		}
		if s.Len() != 0 || s.Words() != 0 {
			t.Fatalf("an emptied set has %d numbers in %d words", s.Len(), s.Words())
		}
	})
}

// modelFree is the smallest number from lo to hi that is not in model.
func modelFree(model map[uint64]bool, lo, hi uint64) (uint64, bool) {
	for x := lo; lo <= hi; x++ {
		if !model[x] {
			return x, true
		}
		if x == hi {
			break
		}
	}
	return 0, false
}

// The last number is found, and there is nothing behind it.
func TestBitmapEnds(t *testing.T) {
	s := addr.NewBitmap()
	const last = math.MaxUint64
	if x, ok := s.NextFree(last, last); !ok || x != last {
		t.Errorf("free = %d, %v, want the last number", x, ok)
	}
	s.Add(last)
	if x, ok := s.NextFree(last, last); ok {
		t.Errorf("free = %d, want none", x)
	}
	if x, ok := s.NextFree(1, 0); ok {
		t.Errorf("free = %d in an empty range", x)
	}
	if x, ok := s.NextFree(0, last); !ok || x != 0 {
		t.Errorf("free = %d, %v, want 0", x, ok)
	}
}

// A full stretch takes as little memory as an empty one, and neither is walked to find what comes after it.
func TestBitmapStaysSmall(t *testing.T) {
	s := addr.NewBitmap()
	const n = 1 << 18
	for x := range uint64(n) {
		s.Add(x)
	}
	if s.Words() > 10 {
		t.Errorf("%d numbers in a row are stored in %d words", n, s.Words())
	}
	if x, ok := s.NextFree(0, math.MaxUint64); !ok || x != n {
		t.Errorf("free = %d, %v, want %d", x, ok, n)
	}
	if allocs := testing.AllocsPerRun(100, func() { s.NextFree(5, math.MaxUint64) }); allocs != 0 {
		t.Errorf("looking for a free number allocates %v times", allocs)
	}
}
