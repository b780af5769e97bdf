package crash

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Place is where lives are lived.
type Place struct {
	Program []string // the plugin's executable, and its arguments from the zeroth on
	// Private gives each life namespaces of its own. Without it the machine's own devices are lent, one life at a time.
	Private bool
	// Every takes one in so many points, beginning with the one that From says.
	Every, From int
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
			// it cannot know.
			if reaction != Dies || i >= whole.stored {
				deaths = append(deaths, death{[]string{p}, reaction})
			}
		}
	}
	second := place.all(t, life, deaths)
	t.Logf("%d points, %d deaths, %d second deaths", len(points), len(deaths), len(second))
	place.all(t, life, second)
}

// all lives a life once for each death. It returns what can be killed next: the points at which the process that was
// started again was at work by itself, one death for each way to get there.
func (place Place) all(t *testing.T, life Life, deaths []death) (next []death) {
	t.Helper()
	workers := 1
	if place.Private {
		workers = 2 * runtime.GOMAXPROCS(0) // much of a life is waiting
	}
	todo := make(chan death)
	var mu sync.Mutex // guards next and seen
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for d := range todo {
				r := place.live(t, life, d)
				if problems := r.report(); problems != "" {
					t.Errorf("killed at %s: %s", d, problems)
				}
				own := slices.DeleteFunc(r.passed(len(d.points)), func(p string) bool { return !strings.HasPrefix(p, "Reconcile/") })
				mu.Lock()
				for i, p := range own {
					if way := strings.Join(own[:i+1], " "); len(d.points) == 1 && !seen[way] {
						seen[way] = true
						next = append(next, death{[]string{d.points[0], p}, d.reaction})
					}
				}
				mu.Unlock()
			}
		})
	}
	for i, d := range deaths {
		if place.Every <= 1 || i%place.Every == place.From%place.Every {
			todo <- d
		}
		if t.Failed() && i > 0 && os.Getenv("CRASH_ALL") == "" {
			t.Logf("the rest is left out after a failure; CRASH_ALL=1 goes on")
			break
		}
	}
	close(todo)
	wg.Wait()
	return next
}

// live lives one life. A first point that was not reached is an error; a second one may not be, when the engine's request
// comes before the process's own work.
func (place Place) live(t *testing.T, life Life, d death) *run {
	dir, err := os.MkdirTemp("/dev/shm", "crash")
	if err != nil {
		t.Error(err)
		return &run{}
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing else is in it
	r := &run{program: place.Program, life: life, dir: dir, deaths: d.points}
	live := func() { r.live(d.reaction, place.Private) }
	if place.Private {
		if err := privately(live); err != nil {
			r.fail("%v", err)
		}
	} else {
		live()
	}
	if len(d.points) > 0 && r.died == 0 && len(r.broken) == 0 {
		r.fail("was not reached")
	}
	return r
}
