// Package conformance is a test suite for implementations of [hw.Kernel]. It holds the fake kernel of hw/hwtest and the
// running Linux kernel (hw/rtnl) to the same behaviour: hwtest runs it in every unit test, hw/rtnl runs [Kernel],
// [NewLinks] and [ARP] with build tag kernel and [SRIOV] with build tag lab, on a real igb.
package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

// An Env does what the suite needs besides hw.Kernel: it makes links as the administrator does, and moves them between
// namespaces as the engine does. The links that it makes are in the host's namespace. It removes them and its namespaces
// when the test ends.
type Env interface {
	// Add makes a link: a "veth" whose peer is called other, a "bridge", or a "macvlan" on other.
	Add(t *testing.T, kind, name, other string)
	// AltName gives a link an alternative name.
	AltName(t *testing.T, name, alt string)
	// MoveToNS and MoveHome are as the methods of hwtest.Kernel; EndNS is its KillNS without a delay.
	MoveToNS(ns, name, newName string) error
	MoveHome(ns, name, backName string) error
	EndNS(ns string)
}

// Kernel tests an hw.Kernel: links, addresses, routes, namespaces, tuning and the watch. open returns the kernel of one
// test.
func Kernel(t *testing.T, open func(t *testing.T) (hw.Kernel, Env)) {
	tests := []struct {
		name string
		run  func(*testing.T, machine)
	}{
		{"a veth pair is listed as it is", testListed},
		{"a link is read by its ifindex and by its name", testRead},
		{"changes are reported", testWatch},
		{"every field of a link can be set", testSetAll},
		{"a change stops at the first failure", testSetOne},
		{"carrier needs both ends", testCarrier},
		{"segments", testSegments},
		{"a name is taken by names and alternative names", testRename},
		{"a link is renamed while up, or is busy", testRenameUp},
		{"alternative names are removed", testAltNames},
		{"values that the kernel refuses", testRefused},
		{"a link that is not there", testMissing},
		{"a link without VFs", testNoVFs},
		{"ports of a bridge", testMaster},
		{"sysfs attributes", testAttr},
		{"addresses", testAddrs},
		{"no IPv6 below an MTU of 1280", testSmallMTU},
		{"lives of addresses", testLives},
		{"IPv6 addresses are lost when a link goes down", testDown},
		{"routes", testRoutes},
		{"what is configured can be added again", testEntries},
		{"sysctls of a link", testSysctls},
		{"an address is the source of a route at once", testSource},
		{"routes that the kernel refuses", testRoutesRefused},
		{"routes of a table and a protocol", testRoutesIn},
		{"a move drops what belongs to the host and keeps the rest", testMove},
		{"a move is refused where a name is taken", testMoveTaken},
		{"a bridge does not move", testImmovable},
		{"a macvlan moves and comes home", testMacvlan},
		{"children in other namespaces are found and removed", testChildrenElsewhere},
		{"virtual links die with their namespace", testEnd},
		{"queues", testQueues},
		{"offload features", testFeatures},
		{"an offload is on only with the offloads that it needs", testNeeds},
		{"tuning that is refused", testTuningRefused},
		{"tuning moves along", testTuningMoves},
		{"a link without controls", testNoControls},
		{"an interrupt without a device", testNoIRQ},
	}
	for _, r := range tests {
		t.Run(r.name, func(t *testing.T) {
			k, env := open(t)
			r.run(t, machine{k, env})
		})
	}
}

// PortVLANs tests the VLANs of an hw.Kernel's bridge ports, for a kernel that may have been built without (CONFIG_BRIDGE_VLAN_FILTERING). open
// is as of Kernel.
func PortVLANs(t *testing.T, open func(t *testing.T) (hw.Kernel, Env)) {
	k, env := open(t)
	testPortVLANs(t, machine{k, env})
}

// machine is the kernel under test and its Env.
type machine struct {
	hw.Kernel
	Env
}

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

// link returns the link of that name; the test ends if there is none.
func (m machine) link(t *testing.T, name string) hw.Link {
	t.Helper()
	l, ok := m.find(t, name)
	if !ok {
		t.Fatalf("there is no link %s", name)
	}
	return l
}

// set sets attributes of a link; the test ends if one fails.
func (m machine) set(t *testing.T, name string, want hw.Link, attrs ...hw.LinkAttr) {
	t.Helper()
	index := m.link(t, name).Index
	for _, a := range attrs {
		if err := m.SetLink(index, a, want); err != nil {
			t.Fatalf("%s: %s: %v", name, a.Op(want), err)
		}
	}
}

// refused checks that err is not nil and matches every error of want.
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

// soon waits for what the kernel does asynchronously.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	within(t, 10*time.Second, what, cond)
}

// within waits for cond, within a bound.
func within(t *testing.T, bound time.Duration, what string, cond func() bool) {
	t.Helper()
	if retry.Poll(context.Background(), 5*time.Millisecond, bound, func() (bool, error) { return cond(), nil }) != nil {
		t.Fatalf("not within %v: %s", bound, what)
	}
}
