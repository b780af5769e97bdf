// Package crashpoint kills the process at a crash point, for tests: before or after a write of the ledger or of the journal, a
// change of a device, or one of a file.
//
// There is no list of crash points: [Points.Store], [Points.Journal] and [Points.Kernel] wrap what the drivers write and change with, and
// put a point before and after each write and each change; what else is changed goes through [Points.Change]. A point is named after the
// call of a driver that is in progress, the kind of change, how often this call has made such a change, and the side of it:
//
//	CreateEndpoint/set-mac/1/after
//
// Package cmd/driver uses this package only with the build tag crashpoints, so that the program that ships cannot be killed this way. It is
// the only package of internal that imports hw and store. Entry point: [New].
package crashpoint

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"sync"
	"syscall"
)

// Points are the crash points of a process. All methods may be called concurrently.
type Points struct {
	at      string
	journal io.Writer
	fail    func(error)

	mu    sync.Mutex     // guards count; held while the process dies, so that no point is passed after that
	count map[string]int // changes so far, by call and kind
}

// New returns points at one of which the process dies by SIGKILL: the one with the name at, none if at is "". The name of each point that
// is passed is written to journal. If that fails the test is void: then fail is called, which must end the process.
func New(at string, journal io.Writer, fail func(error)) *Points {
	return &Points{at: at, journal: journal, fail: fail, count: map[string]int{}}
}

// Change makes a change of another kind, such as of a file, with points.
func (p *Points) Change(kind, what string, change func() error) error {
	return p.around(kind, what, change)
}

// around makes a change, with a point before it and one after it. kind is part of the points' names, what describes the change in the
// journal.
func (p *Points) around(kind, what string, change func() error) error {
	call := callInProgress()
	p.mu.Lock()
	p.count[call+"/"+kind]++
	name := fmt.Sprintf("%s/%s/%d", call, kind, p.count[call+"/"+kind])
	p.mu.Unlock()
	p.pass(name+"/before", what)
	err := change()
	p.pass(name+"/after", what)
	return err
}

// pass writes the name of a point to the journal, and kills the process if it is the point to die at. Calls and background loops pass
// points concurrently: while one of them dies the others wait, so that its point is the last one in the journal.
func (p *Points) pass(name, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.journal, "%s\t%s\n", name, what); err != nil {
		p.fail(fmt.Errorf("crash points: journal: %w", err))
	}
	if name == p.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // cannot fail
		select {}
	}
}

// driverMethod matches the name of an exported method of a driver: a call of the engine or another owner, or a background loop.
var driverMethod = regexp.MustCompile(`/(?:netdrv|ipamdrv)\.\(\*(?:Driver|Attachments)\)\.([A-Z]\w*)`)

// callInProgress returns the name of the outermost method of a driver on the stack, "start" if there is none.
func callInProgress() string {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	call := "start"
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if m := driverMethod.FindStringSubmatch(f.Function); m != nil {
			call = m[1]
		}
	}
	return call
}
