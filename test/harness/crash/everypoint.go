package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// Environment defines where scenarios run and which crashes are tested.
type Environment struct {
	Program []string // the plugin's executable and its argv
	// Private gives each run of a scenario its own namespaces. Otherwise it uses the machine's devices, one run at a time.
	Private bool
	// Etcd holds pools and leases, each run under its own key prefix. Nil: they are in the process's own ledger.
	Etcd *etcdtest.Cluster
	// Every selects one in so many crashes, Seed says which. 0 and 1 select all.
	Every int
	Seed  uint64
	// Part of Parts is the share of the first crashes that runs here, from 1 on. 0 of 0 is all.
	Part, Parts int
}

// A kill is the crash points at which the processes are killed, and the engine's reaction.
type kill struct {
	points   []string // of the first process, the second...
	reaction Reaction
}

// String returns the kill as it is printed in a test's output.
func (k kill) String() string {
	return fmt.Sprintf("%s, engine: %s", strings.Join(k.points, ", then "), k.reaction)
}

// AtEveryPoint runs a scenario once without a crash, once per crash point and reaction, and once per crash point that a restarted
// process passed.
func AtEveryPoint(t *testing.T, env Environment, scenario Scenario) {
	t.Helper()
	if !env.Private {
		if err := sh(scenario.Setup); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := sh(scenario.End); err != nil {
				t.Error(err)
			}
		})
	}
	whole := env.runOnce(t, scenario, kill{})
	if problems := whole.report(); problems != "" {
		t.Fatalf("without a crash: %s", problems)
	}
	points := whole.passed(0)
	if len(points) < 10 {
		t.Fatalf("only %v were passed: was the program built with the tag crashpoints?", points)
	}
	var kills []kill
	for i, p := range points {
		for _, reaction := range []Reaction{Repeats, Empty, Dies} {
			// An engine that dies while it creates a network has stored nothing of it: the network is stale, and the process
			// that died with it cannot know. The periodic work for an etcd may come at that time.
			if reaction != Dies || i >= whole.stored && (env.Etcd == nil || !inBackground(p)) {
				kills = append(kills, kill{[]string{p}, reaction})
			}
		}
	}
	first := env.sampleRuns(t, scenario, env.part(kills))
	t.Logf("%d points; killed at %d of %d (%s)", len(points), first.runs-first.notKilled, len(kills), env.sample())
	second := env.sampleRuns(t, scenario, first.next)
	t.Logf("killed a second time at %d of %d", second.runs-second.incomplete, len(first.next))
}

// sampleRuns runs a scenario for a random sample of the kills.
func (env Environment) sampleRuns(t *testing.T, scenario Scenario, kills []kill) *findings {
	t.Helper()
	n := len(kills)
	if env.Every > 1 {
		n = (n + env.Every - 1) / env.Every
		r := rand.New(rand.NewPCG(env.Seed, 0))
		r.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	}
	f := &findings{seen: map[string]bool{}}
	if env.Private {
		env.concurrently(t, scenario, kills[:n], f)
	} else {
		env.sequentially(t, scenario, kills, n, f)
	}
	if f.incomplete > 0 {
		t.Logf("%d of %d runs had fewer crashes than planned", f.incomplete, f.runs)
	}
	return f
}

// concurrently runs a scenario once per kill, several at a time.
func (env Environment) concurrently(t *testing.T, scenario Scenario, kills []kill, f *findings) {
	t.Helper()
	todo := make(chan kill)
	var wg sync.WaitGroup
	workers := 4 * runtime.GOMAXPROCS(0) // a run spends most of its time waiting
	if env.Etcd != nil {
		workers /= 2 // calls fail soon while it is away; and several scenarios run at a time
	}
	for range workers {
		wg.Go(func() {
			for k := range todo {
				f.add(t, k, env.repeat(t, scenario, k))
			}
		})
	}
	for _, k := range kills {
		if enough(t) {
			break
		}
		todo <- k
	}
	close(todo)
	wg.Wait()
	if few := max(4, f.runs/2); scenario.Owners > 0 && f.notKilled > few {
		t.Errorf("%d of %d runs had no crash", f.notKilled, f.runs)
	}
}

// sequentially runs scenarios one after the other until n had a crash. A run without a crash is repeated, unless more than half of n
// had none.
func (env Environment) sequentially(t *testing.T, scenario Scenario, kills []kill, n int, f *findings) {
	t.Helper()
	const few = 3 // always allowed
	for _, k := range kills {
		if f.runs-f.notKilled == n || enough(t) {
			return
		}
		f.add(t, k, env.repeat(t, scenario, k))
		if f.notKilled > max(few, n/2) {
			t.Errorf("%d of %d runs had no crash", f.notKilled, f.runs)
		}
	}
}

// enough returns whether to skip the rest because a test has failed.
func enough(t *testing.T) bool {
	t.Helper()
	if !t.Failed() || os.Getenv("CRASH_ALL") != "" {
		return false
	}
	t.Log("the rest is skipped after a failure; CRASH_ALL=1 continues")
	return true
}

// findings are the results of many runs.
type findings struct {
	mu         sync.Mutex      // guards all below
	next       []kill          // the next kills: crash points that a restarted process passes by itself
	seen       map[string]bool // sequences of crash points of a second process
	runs       int
	incomplete int // runs with fewer crashes than planned
	notKilled  int // runs without a crash
}

// add adds the result of one run.
func (f *findings) add(t *testing.T, k kill, r *run) {
	if problems := r.report(); problems != "" {
		t.Errorf("killed at %s: %s", k, problems)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs++
	f.incomplete += count(r.died < len(k.points))
	if r.died == 0 {
		f.notKilled++
		t.Logf("was not killed at %s", k)
	}
	if len(k.points) > 1 || r.died == 0 {
		return
	}
	own := slices.DeleteFunc(r.passed(1), func(p string) bool { return !inBackground(p) })
	for i, p := range own {
		if sequence := strings.Join(own[:i+1], " "); !f.seen[sequence] {
			f.seen[sequence] = true
			f.next = append(f.next, kill{[]string{k.points[0], p}, k.reaction})
		}
	}
}

// inBackground returns whether the process passes a crash point without a request.
func inBackground(point string) bool {
	return strings.HasPrefix(point, "Reconcile/") || strings.HasPrefix(point, "Maintain/")
}

// repeat repeats a scenario until it had its crash, up to a limit. In a private environment it runs once: a crash point that is not
// reached there is an error, or depends on a timer.
func (env Environment) repeat(t *testing.T, scenario Scenario, k kill) (r *run) {
	tries := 3
	if env.Private {
		tries = 1
	}
	for range tries {
		if r = env.runOnce(t, scenario, k); r.died > 0 || len(r.failures) > 0 {
			break
		}
	}
	return r
}

// runOnce runs a scenario once. A first crash point that was not reached is an error where every run is the same. On hardware the
// reconciler may do what a request did in another run, or the reverse: then the point is reached in the next run, or never. The
// same holds for a second point, if the engine's request comes before the process's own work, for periodic work for an etcd, and for what an
// owner calls at once when the device is home, as the reconciler sees that, too.
func (env Environment) runOnce(t *testing.T, scenario Scenario, k kill) *run {
	dir, err := os.MkdirTemp("/dev/shm", "crash")
	if err != nil {
		t.Error(err)
		return &run{}
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the test has read all results
	r := &run{program: env.Program, etcd: env.Etcd, scenario: scenario, dir: dir, kills: k.points}
	start := func() { r.run(k.reaction, env.Private) }
	if env.Private {
		if err := privately(start); err != nil {
			r.fail("%v", err)
		}
	} else {
		runtime.LockOSThread() // a process ends with the thread that started it (PDEATHSIG), and the threads of private namespaces end
		defer runtime.UnlockOSThread()
		start()
	}
	sure := scenario.Owners == 0 && (env.Etcd == nil || len(k.points) > 0 && !inBackground(k.points[0]))
	if len(k.points) > 0 && r.died == 0 && len(r.failures) == 0 && env.Private && sure {
		r.fail("was not reached")
	}
	return r
}
