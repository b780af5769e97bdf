package dockertest

import (
	"sync"
	"testing"
)

// started are the containers that each test has started.
var started = struct {
	sync.Mutex
	by map[testing.TB][]string
}{by: map[testing.TB][]string{}}

// removeAtEnd has a container removed when the test ends, with the test's others: where its first would be.
func removeAtEnd(t testing.TB, name string) {
	started.Lock()
	defer started.Unlock()
	if started.by[t] == nil {
		t.Cleanup(func() {
			started.Lock()
			names := started.by[t]
			delete(started.by, t)
			started.Unlock()
			atOnce(names, engine.Remove) // a test may have removed some itself
		})
	}
	started.by[t] = append(started.by[t], name)
}

// atOnce does something with all of them at the same time, and tells how each ended: removing a container is mostly waiting for one
// process or another, on one processor.
func atOnce(names []string, do func(string) error) map[string]error {
	ended := map[string]error{}
	var guard sync.Mutex
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			err := do(name)
			guard.Lock()
			defer guard.Unlock()
			ended[name] = err
		})
	}
	all.Wait()
	return ended
}
