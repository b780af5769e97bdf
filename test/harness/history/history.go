// Package history records who was given which address when, and checks that no address was ever given twice.
//
// Each address is a register: free, or had by a node. A grant takes it from free to the node, a release back. Both have an interval from their
// call to their answer, in which they happen at one moment. The history is right if such moments exist for all operations of each address
// (linearizability); porcupine searches for them. The answer to a grant names the address, so that a request that was not answered is no
// operation: what it may have leased was given to no node.
package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Never is the time of an answer that did not come: the release may have happened, at any time since its call.
const Never = time.Duration(math.MaxInt64)

// An Operation is a grant or a release of one address.
type Operation struct {
	Node         int
	Addr         string
	Release      bool
	Call, Answer time.Duration // since the history began
}

// String is the operation for people.
func (o Operation) String() string {
	what, answer := "is given", o.Answer.Round(time.Millisecond).String()
	if o.Release {
		what = "releases it"
	}
	if o.Answer == Never {
		answer = "never answered"
	}
	return fmt.Sprintf("node %d %s: %v to %s", o.Node, what, o.Call.Round(time.Millisecond), answer)
}

// A History collects operations. Its methods may be called concurrently.
type History struct {
	began time.Time

	mu  sync.Mutex // guards all
	all []Operation
}

// New returns a history that begins now.
func New() *History { return &History{began: time.Now()} }

// Now is the time in the history.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Add adds an operation.
func (h *History) Add(o Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, o)
}

// Len is the number of operations.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// Check checks the operations so far. For each address that was given twice it returns its operations, and for one that could not be checked
// in a minute as well.
func (h *History) Check() (wrong []string) {
	h.mu.Lock()
	byAddr := map[string][]Operation{}
	for _, o := range h.all {
		byAddr[o.Addr] = append(byAddr[o.Addr], o)
	}
	h.mu.Unlock()
	for addr, ops := range byAddr {
		slices.SortFunc(ops, func(a, b Operation) int { return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Answer, b.Answer)) })
		if result := check(ops); result != porcupine.Ok {
			wrong = append(wrong, fmt.Sprintf("%s: %s:\n  %s", addr, result, lines(ops)))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// checkTime bounds the search for one address.
const checkTime = time.Minute

// check checks the operations of one address.
func check(ops []Operation) porcupine.CheckResult {
	var all []porcupine.Operation
	for _, o := range ops {
		all = append(all, porcupine.Operation{ClientId: o.Node, Input: o, Call: int64(o.Call), Return: int64(o.Answer)})
	}
	return porcupine.CheckOperationsTimeout(register, all, checkTime)
}

// unheld is the state of a free address.
const unheld = -1

// register is the model of one address: the state is the node that has it.
var register = porcupine.Model{
	Init: func() any { return unheld },
	Step: func(state, input, _ any) (bool, any) {
		has, o := state.(int), input.(Operation)
		switch {
		case !o.Release:
			return has == unheld, o.Node
		case has == o.Node:
			return true, unheld
		}
		return o.Answer == Never, has // it came too late: the address was released before, or never given
	},
}

// lines formats operations, the last ones if there are many.
func lines(ops []Operation) string {
	var all []string
	for _, o := range ops[max(0, len(ops)-50):] {
		all = append(all, o.String())
	}
	return strings.Join(all, "\n  ")
}
