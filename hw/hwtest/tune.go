package hwtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// offload is what a link can do about one of the kernel's features.
type offload int

const (
	neverOn   offload = iota // fixed at off
	alwaysOn                 // fixed at on
	switchOn                 // can be switched, and is on at first
	switchOff                // can be switched, and is off at first
)

// offloads are those of an igb and its VFs; highdma is an example of one that cannot be switched.
func offloads(l *link) map[string]offload {
	all := map[string]offload{
		"rx-checksum": switchOn, "tx-checksum-ip-generic": switchOn, "tx-checksum-ipv4": neverOn, "tx-scatter-gather": switchOn,
		"tx-tcp-segmentation": switchOn, "tx-tcp6-segmentation": switchOn, "tx-tcp-mangleid-segmentation": switchOff,
		"tx-generic-segmentation": switchOn, "rx-gro": switchOn, "rx-lro": neverOn, "highdma": alwaysOn,
		"rx-vlan-hw-parse": switchOn, "tx-vlan-hw-insert": switchOn, "rx-hashing": neverOn, "rx-ntuple-filter": neverOn,
	}
	if l.dev != nil && l.dev.pf != nil {
		all["rx-vlan-hw-parse"], all["tx-vlan-hw-insert"] = alwaysOn, alwaysOn
	}
	if l.dev != nil && l.dev.pf == nil {
		all["rx-hashing"], all["rx-ntuple-filter"] = switchOn, switchOff
	}
	return all
}

// needs is what an offload is not active without (net/core/dev.c, netdev_fix_features).
var needs = map[string]string{
	"tx-tcp-segmentation": "tx-scatter-gather", "tx-tcp6-segmentation": "tx-scatter-gather",
	"tx-generic-segmentation": "tx-scatter-gather",
}

// tunedLocked is how a link is tuned, from its own settings; a new link has its driver's.
func tunedLocked(l *link) hw.Tuning {
	if l.tuning != nil {
		return *l.tuning
	}
	t := hw.Tuning{Features: map[string]hw.Feature{}}
	switch {
	case l.peer != nil:
		t.MaxQueues, t.Queues = hw.Queues{Rx: 8, Tx: 8}, hw.Queues{Rx: 1, Tx: 1}
	case l.dev != nil && l.dev.pf == nil:
		t.MaxQueues, t.Queues = hw.Queues{Combined: 8}, hw.Queues{Combined: 2}
		t.MaxRings, t.Rings = hw.Rings{Rx: 4096, Tx: 4096}, hw.Rings{Rx: 256, Tx: 256}
	case l.dev != nil:
		if n := l.dev.conf.VFQueues; n > 0 {
			t.MaxQueues, t.Queues = hw.Queues{Combined: n}, hw.Queues{Combined: n}
		}
		t.MaxRings, t.Rings = hw.Rings{Rx: 4096, Tx: 4096}, hw.Rings{Rx: 1024, Tx: 1024}
	}
	for name, o := range offloads(l) {
		on := o == switchOn || o == alwaysOn
		t.Features[name] = hw.Feature{Active: on, Wanted: on && o == switchOn, Fixed: o == neverOn || o == alwaysOn}
	}
	return t
}

// Tuning implements hw.Kernel.
func (k *Kernel) Tuning(index int) (hw.Tuning, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return hw.Tuning{}, hw.FromErrno(syscall.ENODEV)
	}
	return copyOf(tunedLocked(l)), nil
}

// Tuning reads how a link in the namespace is tuned.
func (n Namespace) Tuning(name string) hw.Tuning {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	return copyOf(tunedLocked(n.k.needLocked(n.ns, name)))
}

func copyOf(t hw.Tuning) hw.Tuning {
	t.Features = maps.Clone(t.Features)
	return t
}

// SetTuning implements hw.Kernel.
func (k *Kernel) SetTuning(index int, a hw.TuningAttr, want hw.Tuning) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		return k.tuneLocked(l, a, want)
	}, func() string { return fmt.Sprintf("tune %s: %s", k.labelLocked(index), a.Op(want)) })
}

// tuneLocked sets one attribute of a link's tuning.
func (k *Kernel) tuneLocked(l *link, a hw.TuningAttr, want hw.Tuning) error {
	t := copyOf(tunedLocked(l))
	var err error
	switch a {
	case hw.TuningQueues:
		if err = setQueues(&t, want.Queues); err == nil {
			k.requeueLocked(l, t.Queues)
		}
	case hw.TuningRings:
		err = setRings(&t, want.Rings)
	case hw.TuningFeatures:
		err = setFeatures(&t, want.Features)
	}
	if err != nil {
		return err
	}
	l.tuning = &t
	return nil
}

func setQueues(t *hw.Tuning, q hw.Queues) error {
	switch most := t.MaxQueues; {
	case most == hw.Queues{}:
		return syscall.EOPNOTSUPP
	case q.Combined > most.Combined || q.Rx > most.Rx || q.Tx > most.Tx:
		return syscall.EINVAL
	}
	for _, n := range []struct{ to, now *int }{
		{&q.Combined, &t.Queues.Combined}, {&q.Rx, &t.Queues.Rx}, {&q.Tx, &t.Queues.Tx},
	} {
		if *n.to > 0 { // 0 is left out of the message
			*n.now = *n.to
		}
	}
	return nil
}

// setRings rounds up to a multiple of 8, as igb and igbvf do.
func setRings(t *hw.Tuning, r hw.Rings) error {
	switch {
	case t.MaxRings == hw.Rings{}:
		return syscall.EOPNOTSUPP
	case r.Rx > t.MaxRings.Rx || r.Tx > t.MaxRings.Tx:
		return syscall.EINVAL
	}
	for _, ring := range []struct {
		to  int
		now *int
	}{{r.Rx, &t.Rings.Rx}, {r.Tx, &t.Rings.Tx}} {
		if ring.to > 0 { // 0 is left out of the message
			*ring.now = (max(ring.to, 80) + 7) &^ 7
		}
	}
	return nil
}

// setFeatures has offloads wanted, and then active unless something that they need is not. One that is fixed is left as it
// is without an error.
func setFeatures(t *hw.Tuning, wanted map[string]hw.Feature) error {
	for name := range wanted {
		if _, ok := t.Features[name]; !ok {
			return syscall.EOPNOTSUPP
		}
	}
	for name, to := range wanted {
		if f := t.Features[name]; !f.Fixed {
			f.Wanted = to.Wanted
			t.Features[name] = f
		}
	}
	for _, first := range []bool{true, false} {
		for name, f := range t.Features {
			if need := needs[name]; !f.Fixed && (need == "") == first {
				f.Active = f.Wanted && (need == "" || t.Features[need].Active)
				t.Features[name] = f
			}
		}
	}
	return nil
}

// Controls implements hw.Kernel.
func (k *Kernel) Controls(index int) ([]hw.Control, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	return slices.Clone(l.controls), nil
}

// SetControl implements hw.Kernel.
func (k *Kernel) SetControl(index int, c hw.Control) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		switch {
		case l == nil:
			return syscall.ENODEV
		case l.dev == nil && c.Kind != hw.ControlTCX:
			return syscall.EOPNOTSUPP
		case l.stuck == c.Kind:
			return l.stuckWhy
		case c.Body != nil && c.Kind == hw.ControlTCX:
			return syscall.EINVAL
		}
		return l.control(c)
	}, func() string { return fmt.Sprintf("set %s of %s to %x", c, k.labelLocked(index), c.Body) })
}

// control gives a control its value, or removes it.
func (l *link) control(c hw.Control) error {
	i := slices.IndexFunc(l.controls, func(o hw.Control) bool { return o.Kind == c.Kind && o.Name == c.Name })
	switch {
	case c.Body == nil && i < 0:
		return syscall.ENOENT
	case c.Body == nil:
		l.controls = slices.Delete(slices.Clone(l.controls), i, i+1)
	case i < 0:
		l.controls = append(l.controls, c)
	default:
		l.controls = slices.Clone(l.controls)
		l.controls[i] = c
	}
	return nil
}

// Control gives a control of a link in the namespace its value, as ethtool does, or removes it.
func (n Namespace) Control(name string, c hw.Control) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	if err := n.k.needLocked(n.ns, name).control(c); err != nil {
		n.k.t.Fatalf("hwtest: %s of %s: %v", c, name, err)
	}
}

// Stick has the driver of a link in the host answer with an error to changes of one kind of control; "" ends that.
func (k *Kernel) Stick(name string, kind hw.ControlKind, why syscall.Errno) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	l.stuck, l.stuckWhy = kind, why
}

// Tune sets an attribute of the tuning of a link in the namespace.
func (n Namespace) Tune(name string, a hw.TuningAttr, want hw.Tuning) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	if err := n.k.tuneLocked(n.k.needLocked(n.ns, name), a, want); err != nil {
		n.k.t.Fatalf("hwtest: tune %s: %v", name, err)
	}
}

// printControls says what controls a link has.
func (l *link) printControls(say func(yes bool, format string, args ...any)) {
	for _, c := range slices.SortedFunc(slices.Values(l.controls), func(a, b hw.Control) int { return strings.Compare(a.String(), b.String()) }) {
		say(true, "%s %x", c, c.Body)
	}
}

// printTuning says what of a link's tuning is not as its driver makes it.
func (l *link) printTuning(say func(yes bool, format string, args ...any)) {
	if l.tuning == nil {
		return
	}
	now, fresh := *l.tuning, tunedLocked(&link{dev: l.dev, peer: l.peer})
	say(now.Queues != fresh.Queues, "queues %v", now.Queues)
	say(now.Rings != fresh.Rings, "rings %v", now.Rings)
	var other []string
	for _, name := range slices.Sorted(maps.Keys(now.Features)) {
		if f := now.Features[name]; f != fresh.Features[name] {
			other = append(other, fmt.Sprintf("%s %+v", name, f))
		}
	}
	say(len(other) > 0, "features %s", strings.Join(other, ", "))
}
