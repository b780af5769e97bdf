package hwtest

import "time"

// Reset resets a PCI function, as its reset attribute, its firmware or its driver does; it takes a while. A VF cannot be set up
// meanwhile (EBUSY), and one that is up, in whatever namespace, has no carrier. The reset of a PF takes all its VFs along: the PF has
// no carrier either, and its driver neither reports the VFs nor changes them. Afterwards all settings are as before, or with ResetForgets
// those of VFs that have just been made.
func (k *Kernel) Reset(pci string, takes time.Duration) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	if d.pf != nil {
		k.closeVFLocked(d, takes)
		return
	}
	for _, vf := range d.vfs {
		vf.resetting = true
		k.closeVFLocked(vf, takes)
	}
	if d.net != nil {
		k.untrainLocked(d.net)
	}
	k.afterLocked(takes, func() {
		for _, vf := range d.vfs {
			vf.resetting = false
			if d.conf.ResetForgets {
				vf.state, vf.adminMAC = freshVF(d.conf), false
				k.showTrunkLocked(vf)
			}
		}
		if d.net != nil && d.net.Up {
			k.trainLocked(d.net, d.conf.CarrierAfter)
		}
	})
}

// Reload is devlink loading the driver of a PF again: its netdev is made again, down, and what it had set for its VFs is lost. The VFs stay,
// with their netdevs where they are. It is the worst that a driver could do, and that of none in particular.
func (k *Kernel) Reload(pci string, takes time.Duration) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	if d.net != nil {
		k.deleteLocked(d.net)
		d.net = nil
	}
	for _, vf := range d.vfs {
		vf.state, vf.adminMAC = freshVF(d.conf), false
		k.showTrunkLocked(vf)
	}
	k.afterLocked(takes, func() { k.makeNetdevLocked(d) })
}

// BindAgain is the driver of a function being unbound and bound again, as an administrator or the recovery of a driver does it: the netdev
// that there was ends, in whatever namespace, and the host gets another one.
func (k *Kernel) BindAgain(pci string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	name := d.driver
	k.unbindLocked(d)
	k.bindLocked(d, name)
}

// closeVFLocked is a VF that resets itself: it cannot be set up for a while, and has its carrier again after that if it is up.
func (k *Kernel) closeVFLocked(vf *device, takes time.Duration) {
	vf.opens = time.Now().Add(takes)
	if vf.net == nil || !vf.net.Up {
		return
	}
	k.untrainLocked(vf.net)
	k.trainLocked(vf.net, takes+vf.conf.VFCarrierAfter)
}

// untrainLocked takes the carrier from a link.
func (k *Kernel) untrainLocked(l *link) {
	l.trained = false
	l.ups++
	k.showLocked(l)
	k.showPeersLocked(l)
}

// functionResetLocked is a function-level reset of a PF by its reset attribute, and its driver setting the PF up again. The PCI core
// restores the PF and enables its VFs again, but the VFs' own configuration is lost, and their drivers do not notice (drivers/pci/pci.c,
// pci_restore_state, and iov.c, sriov_restore_state; Linux 6.12): a VF that is bound does nothing until it is bound again.
func (k *Kernel) functionResetLocked(pf *device) {
	for _, vf := range pf.vfs {
		if vf.driver == "" {
			continue
		}
		vf.cutOff = true
		k.showConfigLocked(vf)
		if vf.net != nil {
			k.showLocked(vf.net)
			k.showPeersLocked(vf.net)
		}
	}
	if pf.net != nil && pf.net.Up {
		k.untrainLocked(pf.net)
		k.trainLocked(pf.net, pf.conf.CarrierAfter)
	}
}

// showConfigLocked shows the beginning of a function's configuration space, of which only the command register is modelled: a driver
// that binds a function has it decode memory and master the bus.
func (k *Kernel) showConfigLocked(d *device) {
	const decodesMemory, mastersBus = 1 << 1, 1 << 2
	config := make([]byte, 64)
	enabled := d.driver != "" && d.driver != vfioPCI || d.opened
	if enabled && !d.cutOff {
		config[4] = decodesMemory | mastersBus
	}
	k.tree.file(d.path+"/config", string(config), nil)
	k.tree.file(d.path+"/enable", map[bool]string{true: "1", false: "0"}[enabled], nil)
}
