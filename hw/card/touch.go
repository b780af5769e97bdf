package card

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

// A Hold takes a VF that is free out of use. The function that it returns restores the VF and puts it back into use. The error says why the
// VF is not free.
type Hold func(ctx context.Context, pf hw.PF, vf hw.VF) (release func(context.Context) error, err error)

// Bounds of waiting: for a driver that resets a VF, and for what is read back to settle.
const (
	busyBound   = 10 * time.Second
	settleBound = 2 * time.Second
	undoBound   = 20 * time.Second
	look        = 50 * time.Millisecond
)

// madeVFs is how many VFs are made on a PF that has none.
const madeVFs = 2

// A touch is one record of reactions.
type touch struct {
	*Recorder
	pf  hw.PF
	vf  hw.VF
	got Reaction
	say func(string)
}

// Touch adds to a card how the driver reacts to settings of a VF that is free. It makes VFs if the PF has none, and removes them. Everything
// is undone, and compared with what was before; the card has the difference. hold takes the VF out of use; say is told each step before it
// is done.
func (r *Recorder) Touch(ctx context.Context, c *Card, ref string, hold Hold, say func(string)) (err error) {
	pf, err := r.Host.UsablePF(ref)
	if err != nil {
		return err
	}
	switch on, err := r.Host.Switchdev(pf); {
	case err != nil:
		return err
	case on:
		return &hw.Error{Dev: pf.String(), Err: hw.Because(hw.ErrUnsupported, "the nic is in switchdev mode, in which its driver refuses most settings; "+
			"record it without --touch, or change that with: devlink dev eswitch set pci/%s mode legacy", pf.PCI())}
	}
	if pf.NumVFs > 0 && !pf.Up {
		return &hw.Error{Dev: pf.String(), Err: errors.New(pf.DownReason())}
	}
	before, err := r.state(ref)
	if err != nil {
		return err
	}
	t := &touch{Recorder: r, pf: pf, say: say}
	err = t.withVFs(ctx, func() error {
		if err := t.refresh(); err != nil {
			return err
		}
		if err := r.vfs(c, t.pf); err != nil {
			return err
		}
		return t.withVF(ctx, hold, t.run)
	})
	// Links settle after what was last set.
	var after []string
	_ = retry.Poll(ctx, look, undoBound, func() (bool, error) {
		now, err := r.state(ref)
		after = now
		return err != nil || slices.Equal(before, after), err
	})
	t.got.Differs = r.differs(before, after)
	c.Touch = &t.got
	return err
}

// refresh reads the PF again.
func (t *touch) refresh() (err error) {
	t.pf, err = t.Host.UsablePF(t.pf.PCI())
	t.got.Carrier = t.pf.Carrier
	return err
}

// withVFs does something while the PF has VFs.
func (t *touch) withVFs(ctx context.Context, do func() error) (err error) {
	if t.pf.NumVFs > 0 {
		t.writeNumVFs(NumVFsSame, t.pf.NumVFs)
		t.writeNumVFs(NumVFsTooMany, t.pf.TotalVFs+1)
		return do()
	}
	was, err := t.Host.SnapshotPF(t.pf)
	if err != nil {
		return err
	}
	n := min(madeVFs, t.pf.TotalVFs)
	t.say(fmt.Sprintf("make %d vfs of %s, and remove them at the end", n, t.pf))
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer stop()
		err = errors.Join(err, retry.Poll(end, look, undoBound, func() (bool, error) { // the VFs' drivers are loaded meanwhile
			if err := t.refresh(); err != nil {
				return false, err
			}
			err := t.Host.DisableVFs(t.pf, was)
			return err == nil, nil
		}))
	}()
	err = t.Host.EnableVFs(ctx, t.pf, n)
	t.got.MadeVFs = true
	t.add(NumVFsMade, err, "")
	if err != nil {
		return err
	}
	t.writeNumVFs(NumVFsSame, n)
	if t.pf.TotalVFs > n {
		t.writeNumVFs(NumVFsOther, n+1)
	}
	t.writeNumVFs(NumVFsTooMany, t.pf.TotalVFs+1)
	return do()
}

// writeNumVFs writes a number that makes and removes no VFs.
func (t *touch) writeNumVFs(name string, n int) {
	t.say(fmt.Sprintf("write %d to sriov_numvfs", n))
	t.add(name, t.Kernel.WriteAttr(dir(t.pf.PCI())+"/sriov_numvfs", fmt.Sprint(n)), "")
}

// add adds a step.
func (t *touch) add(name string, err error, reads string) {
	t.got.Steps = append(t.got.Steps, Step{Set: name, Errno: errnoName(err), Reads: reads})
}

// withVF does something with a VF that is free, the last of them, and puts it back.
func (t *touch) withVF(ctx context.Context, hold Hold, do func(context.Context) error) (err error) {
	vfs, err := t.Host.VFs(t.pf)
	if err != nil {
		return err
	}
	why := errNoVF
	for _, vf := range slices.Backward(vfs) {
		taken, err := t.Host.Taken(vf)
		if err != nil {
			return err
		}
		if taken != "" {
			why = fmt.Errorf("%w: %s %s", errNoVF, vf, taken)
			continue
		}
		release, err := hold(ctx, t.pf, vf)
		if err != nil {
			why = fmt.Errorf("%w: %w", errNoVF, err)
			continue
		}
		t.vf = vf
		t.say(fmt.Sprintf("%s is taken out of use", vf))
		defer func() {
			end, stop := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
			defer stop()
			err = errors.Join(err, release(end))
			t.say(fmt.Sprintf("%s is put back", vf))
		}()
		return do(ctx)
	}
	return &hw.Error{Dev: t.pf.String(), Err: why}
}

// Restoring returns a Hold for hosts on which nothing else gives VFs away: the VF is restored from its snapshot.
func Restoring(host *hw.Host) Hold {
	return func(_ context.Context, pf hw.PF, vf hw.VF) (func(context.Context) error, error) {
		was, err := host.SnapshotVF(pf, vf)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			if err := host.CleanVF(pf.PCI(), vf.Index, vf.ID()); err != nil {
				return err
			}
			return host.RestoreVF(ctx, pf.PCI(), vf.Index, vf.ID(), was)
		}, nil
	}
}

// run makes all settings.
func (t *touch) run(ctx context.Context) error {
	var errs []error
	all := slices.DeleteFunc(series(), func(s setting) bool { return !s.attr.On(t.pf.Type) })
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].attr == all[0].attr {
			n++
		}
		errs = append(errs, t.attribute(ctx, all[:n]))
		all = all[n:]
	}
	if t.pf.InfiniBand() {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, t.bound(ctx))...)
}

// attribute makes the settings of one attribute, and restores it.
func (t *touch) attribute(ctx context.Context, all []setting) error {
	was, _, err := t.read(ctx)
	if err != nil {
		return err
	}
	accepted := false
	for _, s := range all {
		before, _, err := t.read(ctx)
		if err != nil {
			return err
		}
		t.say("set " + s.name)
		refused := t.set(ctx, s.attr, s.want)
		accepted = accepted || refused == nil
		after, reported, err := t.read(ctx)
		if err != nil {
			return err
		}
		t.add(s.name, refused, reads(s.attr, s.want, before, after, reported))
	}
	if !accepted {
		return nil
	}
	if err := t.set(ctx, all[0].attr, was); err != nil {
		return &hw.Error{Dev: t.vf.String(), Op: "undo: " + all[0].attr.Op(was), Err: err}
	}
	return nil
}

// set sets an attribute of the VF, and tries again while its driver is busy.
func (t *touch) set(ctx context.Context, a hw.VFAttr, want hw.VFState) (last error) {
	_ = retry.Poll(ctx, look, busyBound, func() (bool, error) {
		last = t.Kernel.SetVF(t.pf.Index, t.vf.Index, a, want)
		return !errors.Is(last, hw.ErrBusy), nil
	})
	return last
}

// read reads what the PF reports of the VF, and waits for a driver that resets it. reported is false if the driver reports no VFs.
func (t *touch) read(ctx context.Context) (s hw.VFState, reported bool, err error) {
	err = retry.Poll(ctx, look, busyBound, func() (bool, error) {
		states, err := t.Kernel.VFs(t.pf.Index)
		if err != nil {
			return false, err
		}
		s, reported = states[t.vf.Index]
		return reported || len(states) == 0, nil
	})
	return s, reported, err
}

// reads returns what was read back of an attribute.
func reads(a hw.VFAttr, want, before, after hw.VFState, reported bool) string {
	switch {
	case !reported:
		return NotReported
	case a.Same(want, after):
		return AsAsked
	case a.Same(before, after):
		return AsBefore
	case a == hw.VFMAC || a == hw.VFNodeGUID || a == hw.VFPortGUID:
		return Another
	}
	return a.Value(after)
}

// bound makes the settings for which the VF has to be bound to its driver. A VF that was not is unbound afterwards.
func (t *touch) bound(ctx context.Context) (err error) {
	n, err := t.Host.Bind(ctx, t.pf, t.vf)
	if t.vf.Driver == "" {
		defer func() { err = errors.Join(err, t.Host.CleanVF(t.pf.PCI(), t.vf.Index, t.vf.ID())) }()
	}
	if err != nil {
		return err
	}
	t.vf.Driver, t.got.Driver = n.Driver, n.Driver
	t.got.MSIX = t.has(dir(t.vf.PCI) + "/msi_irqs")
	t.say("set the mtu of " + n.Name + " above that of its pf")
	above := hw.Link{MTU: t.pf.MTU + 100}
	err = t.Kernel.SetLink(n.Index, hw.LinkMTU, above)
	reads := AsBefore
	if now, lookErr := t.Kernel.LinkAt(n.Index); lookErr == nil && now.MTU == above.MTU {
		reads = AsAsked
	}
	t.add(MTUAbovePF, err, reads)
	if err == nil {
		if err := t.Kernel.SetLink(n.Index, hw.LinkMTU, n.Link); err != nil {
			return err
		}
	}
	return t.macs(ctx)
}

// macs finds out who chooses the MAC of a VF, and who is told. The VF is bound, and is bound again.
func (t *touch) macs(ctx context.Context) error {
	if s, _ := t.got.Step(MAC); s.Errno != "" {
		return nil
	}
	if err := t.set(ctx, hw.VFMAC, hw.VFState{MAC: macA}); err != nil {
		return err
	}
	n, err := t.Host.Rebind(ctx, t.pf, t.vf)
	if err != nil {
		return err
	}
	t.say("set another mac, and look whether " + n.Name + " has it")
	err = t.set(ctx, hw.VFMAC, hw.VFState{MAC: macB})
	t.add(MACWhileBound, err, pick(t.soon(ctx, func() bool {
		now, err := t.Host.Find(t.vf.ID())
		return err == nil && now.MAC == macB
	}), AsAsked, AsBefore))
	if n, err = t.Host.Find(t.vf.ID()); err != nil {
		return err
	}
	t.say("give " + n.Name + " a mac that its pf has not set")
	err = t.Kernel.SetLink(n.Index, hw.LinkMAC, hw.Link{MAC: macC})
	t.add(VFMAC, err, t.reportedMAC(ctx, macC, macB))
	return t.drawnMAC(ctx)
}

// drawnMAC has the VF draw a MAC, and looks whether its PF reports it.
func (t *touch) drawnMAC(ctx context.Context) error {
	t.say("have it draw a mac")
	if err := t.set(ctx, hw.VFMAC, hw.VFState{}); err != nil {
		t.add(MACDrawn, err, "")
		return nil
	}
	n, err := t.Host.Rebind(ctx, t.pf, t.vf)
	if err != nil {
		return err
	}
	t.add(MACDrawn, nil, t.reportedMAC(ctx, n.MAC, ""))
	return nil
}

// reportedMAC says which MAC the PF reports for the VF, of one that was asked for and one from before.
func (t *touch) reportedMAC(ctx context.Context, asked, before hw.MAC) string {
	var s hw.VFState
	var reported bool
	t.soon(ctx, func() (is bool) {
		var err error
		s, reported, err = t.read(ctx)
		return err == nil && reported && s.MAC == asked
	})
	return reads(hw.VFMAC, hw.VFState{MAC: asked}, hw.VFState{MAC: before}, s, reported)
}

// soon waits a short time for what may come to pass, and returns whether it has.
func (t *touch) soon(ctx context.Context, is func() bool) bool {
	return retry.Poll(ctx, look, settleBound, func() (bool, error) { return is(), nil }) == nil
}
