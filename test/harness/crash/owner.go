package crash

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// An owner that is no engine is a runtime with a CNI plugin here. Its containers have a network namespace with a file before a device is asked for.
// What a [Reaction] is to it:
//
//	Repeats  the call was not sent yet, or whoever made it repeats it
//	Empty    the call has failed: the runtime has the container deleted until that succeeds, and starts another one
//	Dies     the runtime dies with the plugin, and the container's namespace ends; nobody calls for it any more

// ownerKind is the kind of its owners.
const ownerKind = "cni"

// ownersContainers runs the scenario's containers of a runtime, at the same time. A start that fails is repeated with another ID, as a user would.
func (r *run) ownersContainers(which string) {
	e := r.engine
	var names []string
	for i := range r.scenario.Owners {
		name := fmt.Sprint("c", i)
		names = append(names, name)
		r.retry("attach a device", func(n int) (string, error) {
			return name, e.attach(name, filepath.Join(r.dir, fmt.Sprintf("%s-%d-%d", which, i, n)))
		})
		r.agree(fmt.Sprintf("%s container %d attached", which, i))
	}
	for _, name := range names {
		r.attempt("check the device", func() error { return e.checkAttached(name) })
	}
	if r.scenario.EtcdDown {
		r.shared.proxy.Cut()
	}
	for _, name := range names {
		r.attempt("detach the device", func() error {
			if e.containers[name] != nil {
				e.detach(name)
			}
			return nil
		})
	}
	if r.scenario.EtcdDown {
		r.shared.proxy.Heal()
	}
	r.agree(which + " containers detached")
}

// attach makes a container whose namespace has this file, and does what a CNI plugin does for ADD. If that fails, the container is deleted.
func (e *engine) attach(name, file string) error {
	s, err := e.host.newSpace()
	if err == nil {
		err = s.bind(file)
	}
	if err != nil {
		return err
	}
	c := &container{owner: &admin.Owner{Kind: ownerKind, ID: filepath.Base(file) + "/eth1", Netns: file}, space: s}
	e.containers[name] = c
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	c.owner.Device, c.owner.Inode = st.Dev, st.Ino
	request := map[string]any{"owner": c.owner, "network": "mynet", "options": e.scenario.Options, "container": name}
	if e.scenario.Subnet == "" { // another program has chosen it
		request["addresses"] = []string{"10.9.0.7/24"}
	} else {
		request["ipam"] = admin.IPAM{Subnets: []admin.Subnet{{Subnet: e.scenario.Subnet}}, Options: e.scenario.IPAM}
	}
	var at admin.Attachment
	err = e.call(admin.AttachCall, request, &at)
	if err == nil && len(at.Addresses) != 1 {
		err = fmt.Errorf("it has the addresses %v", at.Addresses)
	}
	if err == nil {
		c.address = at.Addresses[0]
		err = s.moveIn(at.Name, "eth1", c.address)
	}
	if err != nil {
		e.detach(name)
	}
	return err
}

// checkAttached checks that the plugin says of a container's device what it said before.
func (e *engine) checkAttached(name string) error {
	c := e.containers[name]
	if c == nil { // its runtime has died
		return nil
	}
	var at admin.Attachment
	err := e.call(admin.CheckCall, map[string]any{"kind": c.owner.Kind, "id": c.owner.ID}, &at)
	if err == nil && (at.State != "lent" || !slices.Equal(at.Addresses, []string{c.address}) || at.Name != "") {
		err = fmt.Errorf("%s has %+v, and had the address %s", c.owner, at, c.address)
	}
	return err
}

// detach does what a CNI plugin does for DEL, until it succeeds, and ends the container.
func (e *engine) detach(name string) {
	c := e.containers[name]
	if c.space.inside != "" {
		home := fmt.Sprintf("pc%x", sha256.Sum256([]byte(c.owner.ID)))[:14] // no other link has that name
		if err := c.space.moveHome(home); err != nil {
			e.fail("move the device of %s home: %v", c.owner, err)
		}
		c.space.inside = ""
	}
	for errors.Is(e.ignore(admin.DetachCall, map[string]any{"kind": c.owner.Kind, "id": c.owner.ID}), errGone) {
	}
	delete(e.containers, name)
	c.space.end()
}

// abandon is what is left to do for a container whose runtime has died. The plugin looks for namespaces that have ended when a link changes, and
// once a minute.
func (e *engine) abandon(name string) {
	e.containers[name].space.die()
	delete(e.containers, name)
	if err := sh("ip link add nudge type veth\nip link del nudge"); err != nil {
		e.fail("%v", err)
	}
}

// loseOwners counts what a process that dies may have left behind, in a call of an owner or while it ends what containers had that are gone: what the
// ledger has no endpoint or network for any more. The IPAM driver finds it, but later than a run lasts.
func (e *engine) loseOwners() {
	if e.scenario.Owners > 0 && e.scenario.Subnet != "" {
		e.unanswered += e.scenario.Owners
		e.lostPools++
	}
}

// attached returns the owners of the containers.
func (e *engine) attached() []invariant.Owner {
	all := []invariant.Owner{}
	for _, c := range e.containers {
		if c.owner != nil {
			all = append(all, invariant.Owner{Kind: c.owner.Kind, ID: c.owner.ID})
		}
	}
	return all
}

// bind gives the namespace a file, as runtimes do.
func (s *space) bind(file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	s.file = file
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", s.FD), file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind a network namespace to %s: %w", file, err)
	}
	return nil
}

// unbind removes the file, if the namespace has one.
func (s *space) unbind() {
	if s.file == "" {
		return
	}
	_ = unix.Unmount(s.file, unix.MNT_DETACH) // a failure is found by the later check
	_ = os.Remove(s.file)
	s.file = ""
}
