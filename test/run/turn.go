package main

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

// inTurn runs the legs, one after the other. A leg whose layer has its place beside another's runs together with the first of
// those, in what that leaves of the machine, and its lines come after.
func inTurn(all []*leg, out io.Writer, run func(l *leg, out io.Writer, spare bool)) {
	var waiting []*leg
	for _, l := range all {
		if slices.ContainsFunc(all, func(o *leg) bool { return o.name == l.beside }) {
			waiting = append(waiting, l)
			continue
		}
		var beside []*leg
		beside, waiting = split(waiting, l.name)
		said := make([]bytes.Buffer, len(beside))
		var wg sync.WaitGroup
		for i, b := range beside {
			wg.Go(func() { run(b, &said[i], true) })
		}
		run(l, out, false)
		wg.Wait()
		for i := range said {
			_, _ = said[i].WriteTo(out) // as for any line: an output that cannot be written to has no reader
		}
	}
}

// split parts the legs with a place beside a layer from the others.
func split(waiting []*leg, layer string) (beside, others []*leg) {
	for _, l := range waiting {
		if l.beside == layer {
			beside = append(beside, l)
		} else {
			others = append(others, l)
		}
	}
	return beside, others
}
