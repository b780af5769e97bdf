package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// agreeBound is the timeout for ledger, kernel and engine to agree. The reconciler acts at once on what it finds at start, and on
// orphans after orphanAfter. The rest is for slow machines, and less than the minute after which the reconciler runs again anyway.
const agreeBound = orphanAfter + 40*time.Second

// agree waits until ledger, kernel and engine agree, unless there was no crash so far and the run only records crash points.
func (r *run) agree(when string) {
	if len(r.kills) == 0 || r.died > 0 {
		r.settled(when)
	}
}

// settled waits until ledger, kernel and engine agree.
func (r *run) settled(when string) { r.until(when, r.violations) }

// awaitPrefetch waits until the process has prefetched as many addresses as the scenario says.
func (r *run) awaitPrefetch(network string) {
	n := r.engine.networks[network]
	if r.scenario.Leases == 0 || n == nil {
		return
	}
	r.until("taking addresses ahead", func() (missing []string, err error) {
		l, err := r.ledger()
		if err == nil && l.LeasesOf(n.pool) < r.scenario.Leases {
			missing = append(missing, fmt.Sprintf("the pool has %d leases, not %d", l.LeasesOf(n.pool), r.scenario.Leases))
		}
		return missing, err
	})
}

// until waits until a check finds no violation.
func (r *run) until(when string, look func() ([]string, error)) {
	if len(r.failures) > 0 {
		return
	}
	r.disagrees = disagreement{}
	err := dockertest.Await(agreeBound, func() string {
		found, err := look()
		if err != nil {
			found = []string{err.Error()}
		}
		if len(found) > 0 && !r.engine.proc.alive() {
			r.engine.proc = r.restart(errors.New("it died without a request"))
			r.disagrees = disagreement{}
		}
		return strings.Join(found, "\n")
	})
	if err != nil {
		r.fail("%s: %v", when, err)
	}
}

// A disagreement is what was last found of ledger and engine. It lasts until the ledger is written: many runs wait at a time for endpoints to
// become orphans, and to read a ledger takes a hundred times as long as to see that it is the same.
type disagreement struct {
	found   []string
	written time.Time // the file
}

// fileTick is longer than the time in which a second write leaves a file's time of the last one as it is: a tick of the kernel.
const fileTick = 100 * time.Millisecond

// violations returns what does not agree now. The host takes longest to read, so it is read only if ledger and engine agree.
func (r *run) violations() ([]string, error) {
	written := r.ledgerWritten()
	if len(r.disagrees.found) > 0 && written.Equal(r.disagrees.written) {
		return r.disagrees.found, nil
	}
	ledger, err := r.ledger()
	if err != nil {
		return nil, err
	}
	if found, err := r.strayFiles(ledger); len(found) > 0 || err != nil {
		return found, err
	}
	if found := (invariant.Facts{Ledger: ledger, Engine: r.engine.view()}).Violations(); len(found) > 0 {
		if time.Since(written) > fileTick {
			r.disagrees = disagreement{found, written}
		}
		return found, nil
	}
	now, err := invariant.ReadHost()
	if err != nil {
		return nil, err
	}
	return invariant.Facts{Ledger: ledger, Host: now, Before: r.before, Engine: r.engine.view()}.Violations(), nil
}

// ledgerWritten returns when the process's ledger was last written: the zero time if it is not there, and now if records are in etcd as well.
func (r *run) ledgerWritten() time.Time {
	if r.shared != nil {
		return time.Now()
	}
	info, err := os.Stat(filepath.Join(r.dir, "state", "ledger.db"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// specs is the folder of CDI specs of a scenario that has the option cdi.
func (r *run) specs() string { return filepath.Join(r.dir, "cdi") }

// strayFiles returns what the folder of CDI specs has too much, or lacks: a network has its spec as long as it is in the ledger, also if the
// engine has forgotten it because the plugin died in the call that removed it.
func (r *run) strayFiles(ledger *invariant.Ledger) (wrong []string, _ error) {
	name := r.scenario.Options["cdi"]
	if name == "" {
		return nil, nil
	}
	want := []string{}
	if len(ledger.Networks) > 0 {
		want = append(want, "passthrough-"+name+".json")
	}
	entries, err := os.ReadDir(r.specs())
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		wrong = append(wrong, fmt.Sprintf("the folder of CDI specs has %q, not %q", got, want))
	}
	return wrong, err
}

// ledger returns the records of the process, on disk and in etcd.
func (r *run) ledger() (*invariant.Ledger, error) {
	dir := filepath.Join(r.dir, "state")
	if r.shared == nil {
		return invariant.ReadLedger(dir)
	}
	return invariant.ReadShared(context.Background(), dir, r.shared)
}
