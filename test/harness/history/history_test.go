package history_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/history"
)

// give and release are operations in milliseconds; an answer of -1 never came.
func give(node, call, answer int) history.Operation { return operation(node, false, call, answer) }

func release(node, call, answer int) history.Operation { return operation(node, true, call, answer) }

func operation(node int, release bool, call, answer int) history.Operation {
	o := history.Operation{Node: node, Addr: "10.0.0.2", Release: release, Call: time.Duration(call) * time.Millisecond,
		Answer: time.Duration(answer) * time.Millisecond}
	if answer < 0 {
		o.Answer = history.Never
	}
	return o
}

// TestCheck: histories that are right are accepted, and those with a planted duplicate are not.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		ops   []history.Operation
		wrong int
	}{
		"nothing":                             {nil, 0},
		"one after the other":                 {[]history.Operation{give(1, 0, 1), release(1, 2, 3), give(2, 4, 5)}, 0},
		"given while it is released":          {[]history.Operation{give(1, 0, 1), release(1, 2, 9), give(2, 3, 4)}, 0},
		"the request was there before":        {[]history.Operation{give(1, 1, 2), give(2, 0, 9), release(1, 5, 6)}, 0},
		"a release that was never answered":   {[]history.Operation{give(1, 0, 1), release(1, 2, -1), give(2, 3, 4), release(2, 5, 6), give(3, 7, 8)}, 0},
		"a late repetition of a release":      {[]history.Operation{give(1, 0, 1), release(1, 2, 3), give(2, 4, 5), release(1, 6, -1)}, 0},
		"given twice":                         {[]history.Operation{give(1, 0, 1), give(2, 4, 5)}, 1},
		"given twice by one node":             {[]history.Operation{give(1, 0, 1), give(1, 4, 5)}, 1},
		"given twice at once":                 {[]history.Operation{give(1, 0, 9), give(2, 0, 9)}, 1},
		"given before the release was called": {[]history.Operation{give(1, 0, 1), give(2, 2, 3), release(1, 4, 5)}, 1},
		"given twice after a release":         {[]history.Operation{give(1, 0, 1), release(1, 2, 9), give(2, 3, 4), give(3, 5, 6)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := history.New()
			for _, o := range c.ops {
				h.Add(o)
			}
			if wrong := h.Check(); len(wrong) != c.wrong {
				t.Errorf("%q", wrong)
			}
		})
	}
}

// TestPlanted: a long history of many addresses is right; with one more grant while an address is in use it is not, and only that address is
// named.
func TestPlanted(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 0))
		h := history.New()
		var planted history.Operation
		for n := range 50 {
			addr := fmt.Sprint("10.0.0.", n)
			now := time.Duration(0)
			next := func() time.Duration { now += time.Duration(1 + rng.IntN(1000)); return now }
			for i := range 100 {
				given := history.Operation{Node: rng.IntN(5), Addr: addr, Call: next(), Answer: next()}
				if i == 50 && n == 10*int(seed) {
					planted = history.Operation{Node: rng.IntN(5), Addr: addr, Call: next(), Answer: next()}
				}
				h.Add(given)
				h.Add(history.Operation{Node: given.Node, Addr: addr, Release: true, Call: next(), Answer: next()})
			}
		}
		if wrong := h.Check(); len(wrong) > 0 {
			t.Fatalf("seed %d: %q", seed, wrong)
		}
		h.Add(planted)
		if wrong := h.Check(); len(wrong) != 1 || h.Len() != 50*200+1 {
			t.Errorf("seed %d: %d addresses are wrong, want 1", seed, len(wrong))
		}
	}
}
