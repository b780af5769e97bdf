package hwtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// An Env is what the contract needs of the world around a kernel: the administrator who makes links, and the engine
// that moves them. Links that it makes are in the host's namespace; it removes them and its namespaces when the test
// ends.
type Env interface {
	// Add makes a link: a "veth" whose peer is called other, a "bridge", or a "macvlan" on other.
	Add(t *testing.T, kind, name, other string)
	// AltName gives a link an alternative name.
	AltName(t *testing.T, name, alt string)
	// MoveToNS, MoveHome and EndNS are as the methods of Kernel.
	MoveToNS(ns, name, newName string) error
	MoveHome(ns, name, backName string) error
	EndNS(ns string)
}

// Contract holds an implementation of the kernel seam to what package hw relies on. open returns a machine for one
// test, with its sysfs.
func Contract(t *testing.T, open func(t *testing.T) (hw.Kernel, Env)) {
	rules := []struct {
		name string
		rule func(*testing.T, machine)
	}{
		{"a veth pair is listed as it is", contractListed},
		{"a link is read by its ifindex and by its name", contractRead},
		{"changes are told", contractWatch},
		{"every field of a link can be set", contractSetAll},
		{"a change stops at the first failure", contractSetOne},
		{"carrier needs both ends", contractCarrier},
		{"a name is taken by names and alternative names", contractRename},
		{"a link is renamed while up, or is busy", contractRenameUp},
		{"alternative names are removed", contractAltNames},
		{"values that the kernel refuses", contractRefused},
		{"a link that is not there", contractMissing},
		{"a link without VFs", contractNoVFs},
		{"ports of a bridge", contractMaster},
		{"sysfs attributes", contractAttr},
		{"addresses", contractAddrs},
		{"lives of addresses", contractLives},
		{"IPv6 addresses are lost when a link goes down", contractDown},
		{"routes", contractRoutes},
		{"routes that the kernel refuses", contractRoutesRefused},
		{"a move drops what belongs to the host and keeps the rest", contractMove},
		{"a move is refused where a name is taken", contractMoveTaken},
		{"a bridge does not move", contractImmovable},
		{"a macvlan moves and comes home", contractMacvlan},
		{"virtual links die with their namespace", contractEnd},
		{"queues", contractQueues},
		{"offload features", contractFeatures},
		{"an offload goes with what it needs, and comes back with it", contractNeeds},
		{"tuning that is refused", contractTuningRefused},
		{"tuning moves along", contractTuningMoves},
		{"an interrupt that nobody has", contractNoIRQ},
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			k, env := open(t)
			r.rule(t, machine{k, env})
		})
	}
}

// machine is what a rule is tried on.
type machine struct {
	hw.Kernel
	Env
}

// set is a pointer to a value, for changes.
func set[T any](v T) *T { return &v }

// find returns the link of that name; ok is false when there is none.
func (m machine) find(t *testing.T, name string) (l hw.Link, ok bool) {
	t.Helper()
	links, err := m.Links()
	if err != nil {
		t.Fatalf("list links: %v", err)
	}
	i := slices.IndexFunc(links, func(l hw.Link) bool { return l.Name == name })
	if i < 0 {
		return hw.Link{}, false
	}
	return links[i], true
}

// link is find for a link that has to be there.
func (m machine) link(t *testing.T, name string) hw.Link {
	t.Helper()
	l, ok := m.find(t, name)
	if !ok {
		t.Fatalf("there is no link %s", name)
	}
	return l
}

// set sets attributes of a link, which has to succeed.
func (m machine) set(t *testing.T, name string, want hw.Link, attrs ...hw.LinkAttr) {
	t.Helper()
	index := m.link(t, name).Index
	for _, a := range attrs {
		if err := m.SetLink(index, a, want); err != nil {
			t.Fatalf("%s: %s: %v", name, a.Op(want), err)
		}
	}
}

// refused checks that an error is there and matches everything in want.
func refused(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: succeeded, want an error that matches %v", what, want)
	}
	for _, w := range want {
		if err != nil && !errors.Is(err, w) {
			t.Errorf("%s: error is %v (%T), want one that matches %v", what, err, err, w)
		}
	}
}

// done checks that there is no error.
func done(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// soon waits for what the kernel does behind one's back.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	within(t, 10*time.Second, what, cond)
}

// within waits for cond, within a bound.
func within(t *testing.T, bound time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(bound); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}
