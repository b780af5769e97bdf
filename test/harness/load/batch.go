package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/engineapi"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// A Batch is a number of containers that are started and stopped together.
type Batch struct {
	On      map[string]int // number of containers by network
	TooMany int            // number of containers that must be refused
	Refusal string         // part of the error of a refused container
}

// Run creates the containers, starts and stops all of them at the same time in each round, and removes them when the test ends.
// TooMany of them are refused in each round with that error, and no other call to the plugin fails. The plugin's resource usage is
// the same after each round.
func (c Batch) Run(t *testing.T, rounds int) {
	t.Helper()
	if rounds < 2 {
		t.Fatalf("%d rounds: want at least 2, to compare them", rounds)
	}
	before, err := invariant.ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	logged := len(log(t))
	e := engineapi.Engine()
	t.Cleanup(e.CloseIdleConnections)
	names := c.create(t, e)
	var usages []usage
	for round := range rounds {
		start := time.Now()
		c.refused(t, round+1, again(t, e, Together(names, e.Start), 1+len(names)/200))
		started := time.Since(start)
		agree(t, before, len(names)-c.TooMany)
		start = time.Now()
		for name, err := range Together(names, e.Stop) {
			t.Errorf("round %d: stop %s: %v", round+1, name, err)
		}
		stopped := time.Since(start)
		agree(t, before, 0)
		usages = append(usages, readUsage(t))
		t.Logf("round %d: all started in %.1f s, stopped in %.1f s; %+v", round+1, started.Seconds(), stopped.Seconds(), usages[round])
	}
	for problem, n := range c.failed(log(t)[logged:]) {
		t.Errorf("%d times: %s", n, problem)
	}
	for _, problem := range growth(usages[0], usages[rounds-1]) {
		t.Errorf("%s: %+v, then %+v", problem, usages[0], usages[rounds-1])
	}
}

// create creates the containers and returns their names.
func (c Batch) create(t *testing.T, e engineapi.Client) (names []string) {
	t.Helper()
	networks := map[string]string{} // by the container's name
	for network, n := range c.On {
		for i := range n {
			name := fmt.Sprintf("%s%d", network, i)
			names, networks[name] = append(names, name), network
		}
	}
	t.Cleanup(func() {
		for name, err := range Together(names, e.Remove) {
			t.Errorf("remove %s: %v", name, err)
		}
	})
	for name, err := range Together(names, func(name string) error { return e.Create(name, networks[name]) }) {
		t.Fatalf("create %s: %v", name, err)
	}
	return names
}

// again starts containers again, at most n, whose start containerd has aborted, and returns those that did not start. With hundreds of
// starts at once a container's process may get no CPU and miss containerd's timeout, on any network (seen with engine 28.5, 200 at
// once on two busy CPUs). That the second start gets a device shows that the first device was released.
func again(t *testing.T, e engineapi.Client, failed map[string]error, n int) map[string]error {
	t.Helper()
	for name, err := range failed {
		if n == 0 || !strings.Contains(err.Error(), "failed to start shim") {
			continue
		}
		n--
		t.Logf("start %s again: %v", name, err)
		delete(failed, name)
		if err := e.Start(name); err != nil {
			failed[name] = err
		}
	}
	return failed
}

// refused checks that the expected number of containers did not start, each with the expected error.
func (c Batch) refused(t *testing.T, round int, failed map[string]error) {
	t.Helper()
	for name, err := range failed {
		if c.TooMany == 0 || !strings.Contains(err.Error(), c.Refusal) {
			t.Errorf("round %d: %s: %v", round, name, err)
		}
	}
	if len(failed) != c.TooMany {
		t.Errorf("round %d: %d containers were refused, want %d", round, len(failed), c.TooMany)
	}
}

// log reads the plugin's log.
func log(t *testing.T) []dockertest.Event {
	t.Helper()
	lines, err := dockertest.Log()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// failed counts the failed calls except the expected refusals. Some failures show only here: an engine ignores that an endpoint
// could not be deleted.
func (c Batch) failed(lines []dockertest.Event) map[string]int {
	failed := map[string]int{}
	for _, l := range lines {
		if l.Msg != "call" || l.Outcome == "ok" || c.TooMany > 0 && strings.Contains(l.Err, c.Refusal) {
			continue
		}
		failed[fmt.Sprintf("%s: %s: %s", l.Op, l.Outcome, l.Err)]++
	}
	return failed
}

// Together calls a function for all containers at the same time and returns the errors.
func Together(names []string, do func(name string) error) map[string]error {
	var mu sync.Mutex // guards failed
	failed := map[string]error{}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			if err := do(name); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[name] = err
			}
		})
	}
	wg.Wait()
	return failed
}

// Number returns a number from the environment, such as the rounds of a longer run, or a default.
func Number(t *testing.T, name string, fallback int) int {
	t.Helper()
	if os.Getenv(name) == "" {
		return fallback
	}
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
