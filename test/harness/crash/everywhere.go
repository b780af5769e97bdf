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

// Place is where lives are lived.
type Place struct {
	Program []string // the plugin's executable, and its arguments from the zeroth on
	// Private gives each life namespaces of its own. Without it the machine's own devices are lent, one life at a time.
	Private bool
	// Etcd is where pools and addresses are, those of each life under a prefix of its own. Nil: in the process's own ledger.
	Etcd *etcdtest.Cluster
	// Every takes one in so many deaths, Seed says which. 0 and 1 take all.
	Every int
	Seed  uint64
	// Part of Parts is the share of the first deaths that is this place's, from 1 on: others have the rest. 0 of 0 is all.
	Part, Parts int
}

// A death is where a life is cut short, and what the engine makes of it.
type death struct {
	points   []string // of the first process, the second...
	reaction Reaction
}

// String is the death in a test's output.
func (d death) String() string {
	return fmt.Sprintf("%s, engine: %s", strings.Join(d.points, ", then "), d.reaction)
}

// Everywhere lives a life once, and once for each point and reaction, and then for each point that the process passed which
// was started again.
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
			// An engine that dies while it makes a network has stored nothing of it: it is nobody's, and who has died with
			// it cannot know. What is done every few seconds for an etcd may come at that time.
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

// some lives a life for as many of the deaths as there is time for, chosen at random.
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

// atOnce lives several lives at a time, one for each death.
func (place Place) atOnce(t *testing.T, life Life, deaths []death, f *findings) {
	t.Helper()
	todo := make(chan death)
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // much of a life is waiting
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

// inTurn lives one life after the other until n were cut short. For each that went by without a crash there is another, unless
// they are more than half of n.
func (place Place) inTurn(t *testing.T, life Life, deaths []death, n int, f *findings) {
	t.Helper()
	const few = 3 // of fewer lives that go by nothing can be said
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

// enough tells whether the rest can be left out, because there is a failure to be looked into.
func enough(t *testing.T) bool {
	t.Helper()
	if !t.Failed() || os.Getenv("CRASH_ALL") != "" {
		return false
	}
	t.Log("the rest is left out after a failure; CRASH_ALL=1 goes on")
	return true
}

// findings are what came of many lives.
type findings struct {
	mu       sync.Mutex      // guards all below
	next     []death         // what can be killed next: points that a process passes by itself when it was started again
	seen     map[string]bool // ways of a second process, up to a point
	lived    int
	missed   int // lives with fewer deaths than were meant
	unkilled int // those without any
}

// add reports one life.
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

// byItself tells whether a point is one that the process passes when nobody asks it for anything.
func byItself(point string) bool {
	return strings.HasPrefix(point, "Reconcile/") || strings.HasPrefix(point, "Maintain/")
}

// insist lives a life until it is cut short, but not for ever. In a private place a point that is not reached is an error, or one
// that comes by the clock: once will do.
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

// live lives one life. A first point that was not reached is an error where a life is the same each time. On hardware it may
// be the reconciler that does what a call did the last time, or the reverse: then the point is reached the next time, or there
// is nothing to be killed. So it is with a second point, when the engine's request comes before the process's own work, and
// with what is done for an etcd every few seconds.
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
