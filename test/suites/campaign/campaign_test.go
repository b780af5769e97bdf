//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/invariant"
)

// A campaign is a guest and the model of its expected state.
type campaign struct {
	t       *testing.T
	rand    *rand.Rand // new for each operation
	nets    map[string]*network
	cons    map[string]*container
	created int  // number of containers so far
	live    bool // live-restore: containers keep running without the engine

	before     *invariant.Host  // the host before the plugin was used, with what its administrator has changed since
	atBoot     invariant.Device // the third NIC as the host configures it at boot
	configured map[string]bool  // what the administrator has added to it, see hostConfigs
	raised     map[string]bool  // NICs that stay up because they had children (docs/host.md)
	last       *view            // the last view without violations

	leaks       int                  // addresses whose release may have been lost
	orphans     map[string]time.Time // deadlines of endpoints whose deletion may have been lost, by NETWORK/ENDPOINT
	lostNets    map[string]bool      // IDs of networks that only the plugin has
	mayBeLost   bool                 // the last operation may have added some
	description string               // what the current operation does, for the log
}

// An operation changes or breaks something on the guest.
type operation struct {
	name   string
	weight int  // its relative frequency
	long   bool // takes minutes; skipped in short campaigns
	may    func(*campaign) bool
	do     func(*campaign) error // returns an error if the guest does not behave as expected
	bound  time.Duration         // timeout for ledger, kernel and engine to agree; 0 means reconcileTimeout
}

// short is the maximum number of operations of a short campaign.
const short = 100

// roomToEnd is the time reserved for the last operation and the final check.
const roomToEnd = 15 * time.Minute

// TestCampaign runs CAMPAIGN_OPS (default 25) random operations with CAMPAIGN_SEED (default: from the clock), of those whose names match
// CAMPAIGN_ONLY (default: all).
func TestCampaign(t *testing.T) {
	prepare(t)
	ops, err := strconv.Atoi(env("CAMPAIGN_OPS", "25"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(env("CAMPAIGN_SEED", fmt.Sprint(time.Now().UnixNano()%1e6)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	only := regexp.MustCompile("^(" + env("CAMPAIGN_ONLY", ".*") + ")$")
	t.Logf("SEED=%d OPS=%d", seed, ops)
	c := &campaign{t: t, nets: map[string]*network{}, cons: map[string]*container{}, orphans: map[string]time.Time{},
		lostNets: map[string]bool{}, raised: map[string]bool{}}
	v, err := look()
	if err != nil {
		t.Fatal(err)
	}
	c.before, c.last, c.atBoot = v.Host, v, v.Host.Devices[nic3]
	for i := range ops {
		if end, ok := t.Deadline(); ok && time.Until(end) < roomToEnd {
			t.Logf("%d of %d operations: the time is up", i, ops)
			break
		}
		if err := c.step(i+1, seed, only, ops <= short); err != nil {
			t.Fatalf("%v\nSEED=%d, operation %d\n%s", err, seed, i+1, evidence())
		}
	}
	if err := c.end(); err != nil {
		t.Fatalf("the end: %v\nSEED=%d\n%s", err, seed, evidence())
	}
}

// env returns an environment variable or a default.
func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// step runs a random operation and checks the result.
func (c *campaign) step(i int, seed uint64, only *regexp.Regexp, brief bool) error {
	c.rand = rand.New(rand.NewPCG(seed, uint64(i)))
	op := c.chooseOperation(func(op operation) bool { return only.MatchString(op.name) && !(brief && op.long) })
	c.description = ""
	start := time.Now()
	err := op.do(c)
	took := time.Since(start)
	bound := op.bound
	if bound == 0 {
		bound = reconcileTimeout
	}
	if err == nil {
		err = c.settled(bound)
	}
	if err == nil {
		err = c.pingPair()
	}
	c.t.Logf("%3d %s%s: %.1f s, agreed after %.1f s", i, op.name, c.description, took.Seconds(), (time.Since(start) - took).Seconds())
	if err != nil {
		return fmt.Errorf("%s%s: %w", op.name, c.description, err)
	}
	return nil
}

// describe adds to the description of the current operation.
func (c *campaign) describe(format string, args ...any) {
	c.description += " " + fmt.Sprintf(format, args...)
}

// chooseOperation returns a random operation of those that are possible now.
func (c *campaign) chooseOperation(among func(operation) bool) operation {
	var possible []operation
	sum := 0
	for _, op := range operations() {
		if !among(op) || !op.may(c) {
			continue
		}
		few := len(c.containers(running)) < 3
		if op.name == create.name && len(c.nets) < 3 || few && (op.name == run.name || op.name == start.name) {
			op.weight *= 4 // few containers are left to test with
		}
		possible, sum = append(possible, op), sum+op.weight
	}
	if len(possible) == 0 { // no network exists yet
		return create
	}
	n := c.rand.IntN(sum)
	for _, op := range possible {
		if n -= op.weight; n < 0 {
			return op
		}
	}
	return possible[0]
}

// end removes all containers and networks and checks that nothing is left.
func (c *campaign) end() error {
	for _, k := range c.containers(all) {
		if _, err := docker("rm", "-f", k.name); err != nil {
			return err
		}
		delete(c.cons, k.name)
	}
	for _, n := range c.networks() {
		if _, err := docker("network", "rm", n.name); err != nil {
			return err
		}
		delete(c.nets, n.name)
	}
	c.leaks = 0 // freed with their network
	err := c.settled(orphanTimeout)
	if err == nil && len(c.last.Ledger.Allocations) > 0 {
		err = errors.New("allocations are left")
	}
	return err
}

// evidence returns logs and states that help to analyse a failure.
func evidence() string {
	out, err := try(`engine log | grep -v ShouldRestart | tail -n 60 | sed 's/^time="[^"]*T//; s/ level=[a-z]* msg=/ /; s/ plugin=[0-9a-f]*$//; s/\\"//g' | cut -c1-300
ip -br link; docker ps -a; docker network ls; ls -la ` + state)
	if err != nil {
		return err.Error()
	}
	return out
}
