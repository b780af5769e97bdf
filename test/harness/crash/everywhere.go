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

// Place is the environment that scenarios run in.
type Place struct {
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

// A death is the crash points at which the processes are killed, and the engine's reaction.
type death struct {
	points   []string // of the first process, the second...
	reaction Reaction
}

// String returns the death as it is printed in a test's output.
func (d death) String() string {
	return fmt.Sprintf("%s, engine: %s", strings.Join(d.points, ", then "), d.reaction)
}

// Everywhere runs a scenario once without a crash, once per crash point and reaction, and once per crash point that a restarted
// process passed.
func Everywhere(t *testing.T, place Place, life Life) {
	t.Helper()
	if !place.Private {
		if err := sh(life.Setup); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := sh(life.End); err != nil {
				t.Error(err)
			}
		})
	}
	whole := place.live(t, life, death{})
	if problems := whole.report(); problems != "" {
		t.Fatalf("without a crash: %s", problems)
	}
	points := whole.passed(0)
	if len(points) < 10 {
		t.Fatalf("only %v were passed: was the program built with the tag crashpoints?", points)
	}
	var deaths []death
	for i, p := range points {
		for _, reaction := range []Reaction{Repeats, Empty, Dies} {
			// An engine that dies while it creates a network has stored nothing of it: the network is stale, and the process
			// that died with it cannot know. The periodic work for an etcd may come at that time.
			if reaction != Dies || i >= whole.stored && (place.Etcd == nil || !byItself(p)) {
				deaths = append(deaths, death{[]string{p}, reaction})
			}
		}
	}
	first := place.some(t, life, place.share(deaths))
	t.Logf("%d points; killed at %d of %d (%s)", len(points), first.lived-first.unkilled, len(deaths), place.sample())
	second := place.some(t, life, first.next)
	t.Logf("killed a second time at %d of %d", second.lived-second.missed, len(first.next))
}

// some runs a scenario for as many of the deaths as there is time for, chosen at random.
func (place Place) some(t *testing.T, life Life, deaths []death) *findings {
	t.Helper()
	n := len(deaths)
	if place.Every > 1 {
		n = (n + place.Every - 1) / place.Every
		r := rand.New(rand.NewPCG(place.Seed, 0))
		r.Shuffle(len(deaths), func(i, j int) { deaths[i], deaths[j] = deaths[j], deaths[i] })
	}
	f := &findings{seen: map[string]bool{}}
	if place.Private {
		place.atOnce(t, life, deaths[:n], f)
	} else {
		place.inTurn(t, life, deaths, n, f)
	}
	if f.missed > 0 {
		t.Logf("%d of %d deaths did not come about", f.missed, f.lived)
	}
	return f
}

// atOnce runs a scenario once per death, several at a time.
func (place Place) atOnce(t *testing.T, life Life, deaths []death, f *findings) {
	t.Helper()
	todo := make(chan death)
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // a run mostly waits
		wg.Go(func() {
			for d := range todo {
				f.add(t, d, place.insist(t, life, d))
			}
		})
	}
	for _, d := range deaths {
		if enough(t) {
			break
		}
		todo <- d
	}
	close(todo)
	wg.Wait()
}

// inTurn runs scenarios one after the other until n had a crash. A run without a crash is repeated, unless more than half of n
// had none.
func (place Place) inTurn(t *testing.T, life Life, deaths []death, n int, f *findings) {
	t.Helper()
	const few = 3 // fewer runs without a crash say nothing
	for _, d := range deaths {
		if f.lived-f.unkilled == n || enough(t) {
			return
		}
		f.add(t, d, place.insist(t, life, d))
		if f.unkilled > max(few, n/2) {
			t.Errorf("%d of %d lives went by without a crash", f.unkilled, f.lived)
		}
	}
}

// enough returns whether the rest can be left out because a test has failed.
func enough(t *testing.T) bool {
	t.Helper()
	if !t.Failed() || os.Getenv("CRASH_ALL") != "" {
		return false
	}
	t.Log("the rest is left out after a failure; CRASH_ALL=1 goes on")
	return true
}

// findings are the results of many runs.
type findings struct {
	mu       sync.Mutex      // guards all below
	next     []death         // the next deaths: crash points that a restarted process passes by itself
	seen     map[string]bool // sequences of crash points of a second process
	lived    int
	missed   int // runs with fewer crashes than planned
	unkilled int // runs without a crash
}

// add adds the result of one run.
func (f *findings) add(t *testing.T, d death, r *run) {
	if problems := r.report(); problems != "" {
		t.Errorf("killed at %s: %s", d, problems)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lived++
	f.missed += count(r.died < len(d.points))
	if r.died == 0 {
		f.unkilled++
		t.Logf("was not killed at %s", d)
	}
	if len(d.points) > 1 || r.died == 0 {
		return
	}
	own := slices.DeleteFunc(r.passed(1), func(p string) bool { return !byItself(p) })
	for i, p := range own {
		if way := strings.Join(own[:i+1], " "); !f.seen[way] {
			f.seen[way] = true
			f.next = append(f.next, death{[]string{d.points[0], p}, d.reaction})
		}
	}
}

// byItself returns whether the process passes a crash point without a request.
func byItself(point string) bool {
	return strings.HasPrefix(point, "Reconcile/") || strings.HasPrefix(point, "Maintain/")
}

// insist repeats a scenario until it had its crash, up to a limit. In a private place it runs once: a crash point that is not
// reached there is an error, or depends on a timer.
func (place Place) insist(t *testing.T, life Life, d death) (r *run) {
	tries := 3
	if place.Private {
		tries = 1
	}
	for range tries {
		if r = place.live(t, life, d); r.died > 0 || len(r.broken) > 0 {
			break
		}
	}
	return r
}

// live runs a scenario once. A first crash point that was not reached is an error where every run is the same. On hardware the
// reconciler may do what a request did in another run, or the reverse: then the point is reached in the next run, or never. The
// same holds for a second point, if the engine's request comes before the process's own work, and for periodic work for an etcd.
func (place Place) live(t *testing.T, life Life, d death) *run {
	dir, err := os.MkdirTemp("/dev/shm", "crash")
	if err != nil {
		t.Error(err)
		return &run{}
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing else is in it
	r := &run{program: place.Program, etcd: place.Etcd, life: life, dir: dir, deaths: d.points}
	live := func() { r.live(d.reaction, place.Private) }
	if place.Private {
		if err := privately(live); err != nil {
			r.fail("%v", err)
		}
	} else {
		runtime.LockOSThread() // processes end with the thread that started them, and threads of namespaces do end
		defer runtime.UnlockOSThread()
		live()
	}
	sure := place.Etcd == nil || len(d.points) > 0 && !byItself(d.points[0])
	if len(d.points) > 0 && r.died == 0 && len(r.broken) == 0 && place.Private && sure {
		r.fail("was not reached")
	}
	return r
}
