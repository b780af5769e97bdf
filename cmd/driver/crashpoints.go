//go:build crashpoints

package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// crashPoints are the places at which a test kills the process: before and after each durable write and each change of
// a device. They are compiled in by the build tag crashpoints alone, and nobody lists them: what a driver writes or
// changes passes through here, and is named by who asked for it, what it is, how often that was, and which side of it:
//
//	CreateEndpoint/set-mac/1/after
//
// The environment says what happens: CRASH_JOURNAL is a file that gets the name of each point that is passed, CRASH_AT
// is the name of the one at which the process dies, by SIGKILL, as it would by the kernel's hand.
type crashPoints struct {
	at     string
	passed *os.File // nil: nobody wants to know

	mu    *sync.Mutex // guards count, and the end: nobody passes a point after the last one
	count map[string]int
}

// newCrashPoints reads the environment.
func newCrashPoints() crashPoints {
	p := crashPoints{at: os.Getenv("CRASH_AT"), mu: new(sync.Mutex), count: map[string]int{}}
	if path := os.Getenv("CRASH_JOURNAL"); path != "" {
		var err error
		if p.passed, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			p.die("journal: " + err.Error())
		}
	}
	return p
}

// orphanAfter is CRASH_ORPHAN_AFTER, so that a test need not wait for minutes; 0, the default, without it.
func (p crashPoints) orphanAfter() time.Duration { return p.duration("CRASH_ORPHAN_AFTER") }

// maintainEvery is CRASH_MAINTAIN_EVERY, likewise.
func (p crashPoints) maintainEvery() time.Duration { return p.duration("CRASH_MAINTAIN_EVERY") }

// duration reads a variable, 0 without it.
func (p crashPoints) duration(name string) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		p.die(name + ": " + err.Error())
	}
	return d
}

// around makes a change, with a point before it and one after. kind is what the change is called in names, what says more.
func (p crashPoints) around(kind, what string, change func() error) error {
	op := operation()
	p.mu.Lock()
	p.count[op+"/"+kind]++
	name := fmt.Sprintf("%s/%s/%d", op, kind, p.count[op+"/"+kind])
	p.mu.Unlock()
	p.pass(name+"/before", what)
	err := change()
	p.pass(name+"/after", what)
	return err
}

// pass notes a point, and is where the process ends if it is the one. A call and the reconciler are at work side by side:
// while one dies, the other waits, so that the point is the last in the journal.
func (p crashPoints) pass(name, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passed != nil {
		if _, err := fmt.Fprintf(p.passed, "%s\t%s\n", name, what); err != nil {
			p.die("journal: " + err.Error())
		}
	}
	if name == p.at {
		p.die("")
	}
}

// die is the end of the process, at once. A reason is one that the test did not want.
func (crashPoints) die(why string) {
	if why != "" {
		fmt.Fprintln(os.Stderr, "crash points:", why)
		os.Exit(2)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it cannot fail, and nobody is left to hear of it
	select {}
}

// driverMethod is a call of the engine's, or the reconciler, in the name of a function on the stack.
var driverMethod = regexp.MustCompile(`/(?:netdrv|ipamdrv)\.\(\*Driver\)\.([A-Z]\w*)`)

// operation is which of them is at work: the outermost on the stack, "start" while there is none.
func operation() string {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	op := "start"
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if m := driverMethod.FindStringSubmatch(f.Function); m != nil {
			op = m[1]
		}
	}
	return op
}

// ledger has points at each write to s.
func (p crashPoints) ledger(s store.Store) store.Store { return crashStore{s, p} }

// journal has points at each write to j.
func (p crashPoints) journal(j ipamdrv.Journal) ipamdrv.Journal { return crashJournal{j, p} }

// kernel has points at each change that is asked of m.
func (p crashPoints) kernel(m hw.Kernel) hw.Kernel { return crashKernel{m, p} }
