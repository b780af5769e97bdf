//go:build kernel

package hw_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// TestKernelRemovesAtOnce: many children that are removed at once take much less time than one after the other. When 200
// containers were stopped at once each removal waited for those before it, and so did each look at the links: the calls took
// longer than an engine waits for them. It is the kernel's time that is measured, so that it may take more than one try.
func TestKernelRemovesAtOnce(t *testing.T) {
	k := hw.RunningKernel(t, sys, "")
	w := newWorld(t)
	parent := w.upPair(t, k, "ct0", "ct1")
	var inTurn, atOnce time.Duration
	for range 3 {
		inTurn = timeOf(children(t, k, parent), func(index int) {
			remove(t, k, index)
		})
		var all sync.WaitGroup
		atOnce = timeOf(children(t, k, parent), func(index int) {
			all.Go(func() { remove(t, k, index) })
		}, all.Wait)
		if atOnce < inTurn/2 {
			return
		}
	}
	t.Errorf("%d children: removed in turn in %s, at once in %s", crowd, inTurn, atOnce)
}

// crowd is how many children there are.
const crowd = 16

// children makes them, and returns their indexes.
func children(t *testing.T, k hw.Machine, parent int) (indexes []int) {
	t.Helper()
	for i := range crowd {
		index, err := k.MakeLink(hw.NewLink{Name: fmt.Sprintf("ct1%d", i), Kind: hw.Macvlan, Mode: "bridge", Parent: parent})
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, index)
	}
	return indexes
}

// remove removes one.
func remove(t *testing.T, k hw.Machine, index int) {
	if err := k.RemoveLink(index); err != nil {
		t.Error(err)
	}
}

// timeOf is how long it takes to do something to all, and then what else there is to do.
func timeOf(indexes []int, do func(index int), then ...func()) time.Duration {
	start := time.Now()
	for _, index := range indexes {
		do(index)
	}
	for _, f := range then {
		f()
	}
	return time.Since(start)
}
