package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/test/harness/etcdtest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// Scenario is the host's devices and the network and container that the engine creates.
type Scenario struct {
	Name    string
	Setup   string            // shell commands, a line each, that create the host's devices
	End     string            // likewise, to restore the machine; a private environment needs none
	Subnet  string            // of the network
	Options map[string]string // -o
	IPAM    map[string]string // --ipam-opt
	Aux     map[string]string // --aux-address, with prefix lengths
	// Leases is how many leases the pool has after prefetching; the container starts then. 0: it starts at once.
	Leases int
	// EtcdDown: the etcd is unreachable while the container stops and the network is removed, and reachable afterwards.
	EtcdDown bool
	// Owners is how many containers of a runtime that is no engine take the place of the engine's network and container. Without a Subnet their
	// addresses are not the plugin's.
	Owners int
}

// run is one run of a scenario on one host.
type run struct {
	program  []string
	etcd     *etcdtest.Cluster
	shared   *shared // in etcd; nil without one
	scenario Scenario
	dir      string // of sockets, state and journals
	kills    []string
	died     int // how often the process was killed
	host     *host
	before   *invariant.Host
	engine   *engine
	failures []string // violations
	output   []string // the output of the processes
	stored   int      // how many points had been passed when the first network was there

	disagrees disagreement
}

// journal is the name of the file to which the n-th process writes the crash points that it passes.
func journal(n int) string { return fmt.Sprintf("journal-%d", n) }

// passed returns the crash points that the n-th process has passed, in order.
func (r *run) passed(n int) []string {
	points, err := readPoints(filepath.Join(r.dir, journal(n)))
	if err != nil {
		r.fail("%v", err)
	}
	return points
}

// readPoints reads such a file, which does not exist before the first crash point.
func readPoints(path string) (points []string, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, l := range lines(string(raw)) {
		name, _, _ := strings.Cut(l, "\t")
		points = append(points, name)
	}
	return points, err
}

// fail records a violation.
func (r *run) fail(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// run runs the scenario on this thread's host.
func (r *run) run(reaction Reaction, virtual bool) {
	if err := r.begin(reaction, virtual); err != nil {
		r.fail("%v", err)
	} else {
		r.whole("first")
		switch {
		case r.died > 0 || r.diesAtStop(): // nothing is left that would disturb the next run
			r.engine.reaction = Repeats
			r.whole("second")
			if r.diesAtStop() {
				r.settled("the end")
			}
		case !virtual: // the next run uses the same devices, also if there was no crash
			r.settled("the end")
		}
	}
	r.end()
}

// begin creates the host's devices and starts the process.
func (r *run) begin(reaction Reaction, virtual bool) (err error) {
	if r.host, err = openHost(virtual); err != nil {
		return err
	}
	if virtual {
		if err := sh(r.scenario.Setup); err != nil {
			return err
		}
	}
	if r.etcd != nil {
		if r.shared, err = openShared(r.etcd, filepath.Base(r.dir)); err != nil {
			return err
		}
	}
	if r.before, err = invariant.ReadHost(); err != nil {
		return err
	}
	r.engine = &engine{host: r.host, scenario: r.scenario, reaction: reaction, fail: r.fail, restart: r.restart, shares: r.shared != nil,
		networks: map[string]*network{}, containers: map[string]*container{}}
	r.engine.proc, err = r.startNext()
	return err
}

// sh runs shell commands until one fails.
func sh(script string) error {
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// startNext starts the next process, which dies at the next crash point of the kill.
func (r *run) startNext() (*process, error) {
	at := ""
	if r.died < len(r.kills) {
		at = r.kills[r.died]
	}
	env := r.shared.env()
	if r.scenario.Options["cdi"] != "" {
		if err := os.MkdirAll(r.specs(), 0o755); err != nil {
			return nil, err
		}
		env = append(env, "CDI_DIR="+r.specs())
	}
	if r.scenario.Leases > 0 || r.scenario.EtcdDown {
		env = append(env, "CRASH_MAINTAIN_EVERY="+maintainEvery.String())
	}
	if r.scenario.EtcdDown {
		env = append(env, "HANDLER_TIMEOUT="+handlerTimeoutEtcdDown.String())
	}
	return startProcess(r.program, r.dir, at, journal(r.died), env...)
}

// restart checks that the process died as planned, and starts the next one.
func (r *run) restart(how error) *process {
	p := r.engine.proc
	if r.died >= len(r.kills) {
		r.fail("the process died unexpectedly: %v", how)
	}
	for {
		if err := p.died(); err != nil {
			r.fail("the process %v", err)
		}
		if points := r.passed(r.died); r.died < len(r.kills) && (len(points) == 0 || points[len(points)-1] != r.kills[r.died]) {
			r.fail("the process should have died at %s, and passed %v last", r.kills[r.died], points[max(0, len(points)-1):])
		}
		r.output = append(r.output, p.out.String())
		r.died++
		r.engine.loseOwners()
		next, err := r.startNext()
		if err != nil {
			r.fail("%v", err)
		}
		if next.alive() || len(r.failures) > 0 {
			return next
		}
		p = next
	}
}

// whole runs all steps of the scenario. A step that fails is repeated with another name, as a user would.
func (r *run) whole(which string) {
	if r.scenario.Owners > 0 {
		r.ownersContainers(which)
		return
	}
	e := r.engine
	network := r.retry("create a network", func(n int) (string, error) {
		id := fmt.Sprintf("%s-%d-network-%s", which, n, strings.Repeat("0", 40))
		return id, e.createNetwork(id)
	})
	if which == "first" && r.died == 0 {
		r.stored = len(r.passed(0))
	}
	r.agree(which + " network created")
	r.awaitPrefetch(network)
	r.retry("start a container", func(n int) (string, error) {
		return "c", e.start("c", network, fmt.Sprintf("%s-endpoint-%d-%s", which, n, strings.Repeat("0", 40)))
	})
	r.agree(which + " container started")
	if r.scenario.EtcdDown {
		r.shared.proxy.Cut()
	}
	r.attempt("stop the container", func() error {
		if e.containers["c"] != nil {
			e.stop("c")
		}
		return nil
	})
	if !r.scenario.EtcdDown {
		r.agree(which + " container stopped")
	}
	r.attempt("remove the network", func() error {
		if e.networks[network] != nil {
			e.removeNetwork(network)
		}
		return nil
	})
	if r.scenario.EtcdDown {
		r.shared.proxy.Heal()
	}
	r.agree(which + " network removed")
}

// notFreeYet matches the errors of a device that a crash has left to an endpoint, or that comes home.
var notFreeYet = regexp.MustCompile(" is held by | is on its way back from ")

// retry repeats a step until it succeeds; it may fail only because the plugin died. The device of an endpoint that a crash left
// behind is free after a while, as the error tells the user.
func (r *run) retry(what string, try func(n int) (string, error)) (name string) {
	bound := time.After(agreeBound)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; len(r.failures) == 0; n++ {
		var err error
		done := r.attempt(what, func() error {
			name, err = try(n)
			if r.died > 0 && err != nil && notFreeYet.MatchString(err.Error()) {
				return errGone
			}
			return err
		})
		if done {
			break
		}
		select {
		case <-tick.C:
		case <-bound:
			r.fail("%s: %v", what, err)
		}
	}
	return name
}

// attempt runs a step. If the engine dies in it, the engine is started again.
func (r *run) attempt(what string, do func() error) (done bool) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case engineDied:
			r.engine.reaction = Repeats
			r.engine.cleanUp()
		default:
			panic(v)
		}
	}()
	if len(r.failures) > 0 {
		return false
	}
	before := r.died
	err := do()
	if err != nil && r.died == before && !errors.Is(err, errGone) {
		r.fail("%s: %v", what, err)
	}
	return err == nil
}

// diesAtStop stops the process if it has not reached its crash point yet: the point may be one of the last, where the process
// stores its etcd watermark. If the process died there, the next one is started.
func (r *run) diesAtStop() bool {
	if r.shared == nil || r.died == len(r.kills) || len(r.failures) > 0 {
		return false
	}
	if err := r.engine.proc.stop(); err != nil {
		r.fail("the process %v", err)
	}
	points := r.passed(r.died)
	if len(points) == 0 || points[len(points)-1] != r.kills[r.died] {
		return false
	}
	r.engine.proc = r.restart(errors.New("it died at its stop"))
	return true
}

// end stops the process and removes the host's devices.
func (r *run) end() {
	if r.engine != nil && r.engine.proc != nil {
		if err := r.engine.proc.stop(); err != nil {
			r.fail("the process %v", err)
		}
		r.output = append(r.output, r.engine.proc.out.String())
	}
	if err := r.shared.close(); err != nil {
		r.fail("%v", err)
	}
	if r.host != nil {
		r.host.close()
	}
}

// report returns the violations and the output of the processes.
func (r *run) report() string {
	if len(r.failures) == 0 {
		return ""
	}
	return strings.Join(slices.Compact(r.failures), "\n") + "\n--- output of the processes\n" + strings.Join(r.output, "--- the next\n")
}
