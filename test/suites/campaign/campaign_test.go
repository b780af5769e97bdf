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

// A campaign is a machine and the model of what it has to be.
type campaign struct {
	t    *testing.T
	rand *rand.Rand // anew for each operation
	nets map[string]*network
	cons map[string]*container
	ever int  // containers so far
	live bool // the engine leaves containers running when it goes

	before *invariant.Host // the host without anything of the plugin's
	raised map[string]bool // NICs that may be up for good, because containers got children of them (docs/host.md)
	last   *view           // when all was well last

	leaks     int                  // addresses whose release may have been lost
	orphans   map[string]time.Time // endpoints whose end may have been lost, and until when the plugin may keep them
	lostNets  map[string]bool      // networks that the engine has lost
	mayBeLost bool                 // there may be more of them since the last look
	said      string               // what the operation is about
}

// An operation is something that happens to the machine.
type operation struct {
	name   string
	weight int  // how often it comes, beside the others
	long   bool // it takes minutes: not in short campaigns
	may    func(*campaign) bool
	do     func(*campaign) error // its error is about what the machine did wrong
	bound  time.Duration         // until when all has to agree again; 0 for one pass of the reconciler
}

// short is how many operations a campaign may have and still be short.
const short = 100

// roomToEnd is what is left of the test's time for its last operation and the look at the end.
const roomToEnd = 15 * time.Minute

// TestCampaign runs CAMPAIGN_OPS operations (25), drawn with CAMPAIGN_SEED (one of now), of those whose names match
// CAMPAIGN_ONLY (all).
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
	c.before, c.last = v.Host, v
	for i := range ops {
		if end, ok := t.Deadline(); ok && time.Until(end) < roomToEnd {
			t.Logf("%d operations of %d: the time is up", i, ops)
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

// env is a variable of the environment.
func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// step draws an operation, lets it happen and looks at what came of it.
func (c *campaign) step(i int, seed uint64, only *regexp.Regexp, brief bool) error {
	c.rand = rand.New(rand.NewPCG(seed, uint64(i)))
	op := c.draw(func(op operation) bool { return only.MatchString(op.name) && !(brief && op.long) })
	c.said = ""
	start := time.Now()
	err := op.do(c)
	took := time.Since(start)
	bound := op.bound
	if bound == 0 {
		bound = onePass
	}
	if err == nil {
		err = c.settled(bound)
	}
	if err == nil {
		err = c.talk()
	}
	c.t.Logf("%3d %s%s: %.1f s, agreed after %.1f s", i, op.name, c.said, took.Seconds(), (time.Since(start) - took).Seconds())
	if err != nil {
		return fmt.Errorf("%s%s: %w", op.name, c.said, err)
	}
	return nil
}

// say tells what an operation is about.
func (c *campaign) say(format string, args ...any) { c.said += " " + fmt.Sprintf(format, args...) }

// draw draws one of the operations that are possible now.
func (c *campaign) draw(among func(operation) bool) operation {
	var possible []operation
	sum := 0
	for _, op := range operations() {
		if !among(op) || !op.may(c) {
			continue
		}
		few := len(c.containers(running)) < 3
		if op.name == create.name && len(c.nets) < 3 || few && (op.name == run.name || op.name == start.name) {
			op.weight *= 4 // there is little that can suffer, yet or since an engine has gone with its containers
		}
		possible, sum = append(possible, op), sum+op.weight
	}
	if len(possible) == 0 { // there is nothing yet
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

// end removes everything, and looks whether anything is left.
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
	c.leaks = 0 // they go with their network
	err := c.settled(forgotten)
	if err == nil && len(c.last.Ledger.Allocations) > 0 {
		err = errors.New("there are allocations left")
	}
	return err
}

// evidence is what tells most of what went wrong.
func evidence() string {
	out, err := try(`engine log | grep -v ShouldRestart | tail -n 60 | sed 's/^time="[^"]*T//; s/ level=[a-z]* msg=/ /; s/ plugin=[0-9a-f]*$//; s/\\"//g' | cut -c1-300
ip -br link; docker ps -a; docker network ls; ls -la ` + state)
	if err != nil {
		return err.Error()
	}
	return out
}
