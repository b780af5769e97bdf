package hwtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// firstIRQ is where the numbers of MSI-X vectors begin; a number that is free again is given again.
const firstIRQ = 24

// An irq is an MSI-X vector that a driver has been given.
type irq struct {
	dev       *device
	requested bool // by the driver, at some time: /proc/irq knows it
	cpus      string
	pending   string // chosen while the device was up and not carried out, because no interrupt has come since
}

// allCPUs are the machine's.
func (k *Kernel) allCPUs() hw.CPUs {
	cpus, err := hw.ParseCPUs(k.CPUs)
	if err != nil {
		k.t.Fatalf("hwtest: %v", err)
	}
	return cpus
}

// giveIRQsLocked gives a function's driver its vectors. None is requested before the netdev is up, as with igb.
func (k *Kernel) giveIRQsLocked(d *device, n int) {
	for number := firstIRQ; n > 0; number++ {
		if k.irqs[number] != nil {
			continue
		}
		k.irqs[number] = &irq{dev: d, cpus: k.allCPUs().String()}
		k.tree.file(d.path+"/msi_irqs/"+strconv.Itoa(number), "msix", nil)
		n--
	}
}

// takeIRQsLocked ends a function's vectors.
func (k *Kernel) takeIRQsLocked(d *device) {
	k.tree.remove(d.path + "/msi_irqs")
	for number, i := range k.irqs {
		if i.dev == d {
			delete(k.irqs, number)
		}
	}
}

// vectors is how many a driver asks for: igb two for each queue and one more, igbvf three.
func (d *device) vectors(q hw.Queues) int {
	if d.pf != nil {
		return 3
	}
	return 2*q.Combined + 1
}

// requeueLocked is a driver taking other vectors for another number of queues.
func (k *Kernel) requeueLocked(l *link, q hw.Queues) {
	if l.dev == nil || l.dev.pf != nil {
		return
	}
	k.takeIRQsLocked(l.dev)
	k.giveIRQsLocked(l.dev, l.dev.vectors(q))
	if l.Up {
		k.requestIRQsLocked(l)
	}
}

// requestIRQsLocked is a driver opening its device. /proc/irq knows the vectors from then on, until they are taken.
func (k *Kernel) requestIRQsLocked(l *link) {
	for _, i := range k.irqs {
		if l.dev != nil && i.dev == l.dev && l.dev.conf.IRQs {
			i.requested = true
		}
	}
}

// Affinity implements hw.Kernel.
func (k *Kernel) Affinity(number int) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.irqs[number]
	switch {
	case k.NoProcIRQ:
		return "", hw.Because(hw.ErrUnsupported, "the plugin was not given /proc/irq (see docs/tuning.md)")
	case i == nil || !i.requested:
		return "", hw.FromErrno(syscall.ENOENT)
	case i.pending != "":
		return i.pending, nil
	}
	return i.cpus, nil
}

// SetAffinity implements hw.Kernel.
func (k *Kernel) SetAffinity(number int, cpus string) error {
	return k.call(func() error {
		i := k.irqs[number]
		if i == nil || !i.requested {
			return syscall.ENOENT
		}
		return k.placeLocked(i, cpus)
	}, func() string { return fmt.Sprintf("irq %d: %s", number, cpus) })
}

func (k *Kernel) placeLocked(i *irq, cpus string) error {
	list, err := hw.ParseCPUs(cpus)
	all := k.allCPUs()
	switch {
	case i.dev.conf.ManagedIRQs:
		return syscall.EPERM
	case err != nil || !slices.ContainsFunc(list, func(c int) bool { return slices.Contains(all, c) }):
		return syscall.EINVAL
	case slices.Max(list) > slices.Max(all):
		return syscall.ERANGE
	}
	up := i.dev.net != nil && i.dev.net.Up
	switch {
	case up: // no interrupt ever comes
		i.pending = list.String()
	case i.pending == "":
		i.cpus = list.String()
	}
	return nil
}

// IRQs are where the interrupts of a PCI function go, in order of their numbers; "" for one that no driver has requested.
func (k *Kernel) IRQs(pci string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for _, number := range k.irqsOfLocked(k.deviceLocked(pci)) {
		i := k.irqs[number]
		switch {
		case !i.requested:
			all = append(all, "")
		case i.pending != "":
			all = append(all, i.pending)
		default:
			all = append(all, i.cpus)
		}
	}
	return all
}

// Place has an administrator choose where a function's interrupts go.
func (k *Kernel) Place(pci, cpus string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, number := range k.irqsOfLocked(k.deviceLocked(pci)) {
		if err := k.placeLocked(k.irqs[number], cpus); err != nil {
			k.t.Fatalf("hwtest: irq %d to %s: %v", number, cpus, err)
		}
	}
}

// irqsOfLocked are the numbers of a function's vectors.
func (k *Kernel) irqsOfLocked(d *device) []int {
	var numbers []int
	for number, i := range k.irqs {
		if i.dev == d {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// printIRQs returns the CPUs of a function's interrupts, "" if they were never set.
func (k *Kernel) printIRQs(d *device) string {
	chosen := false
	var places []string
	for _, number := range k.irqsOfLocked(d) {
		i := k.irqs[number]
		place := i.cpus
		if i.pending != "" {
			place = i.pending
		}
		places = append(places, place)
		chosen = chosen || place != k.allCPUs().String()
	}
	if !chosen {
		return ""
	}
	return " irqs to " + strings.Join(places, " ")
}
