package hw

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/internal/number"
	"syscall"
)

// Cores says which CPUs serve the interrupts of a device: those of its NUMA node, or a list. The zero value changes
// nothing.
type Cores struct {
	Near bool
	CPUs CPUs
}

// Empty returns true if the interrupts are left as they are.
func (c Cores) Empty() bool { return !c.Near && len(c.CPUs) == 0 }

// CheckCores refuses CPUs that do not exist or are offline. The error matches ErrInvalid.
func (h *tuner) CheckCores(c Cores) error {
	online, err := h.onlineCPUs()
	if err != nil {
		return err
	}
	for _, cpu := range c.CPUs {
		if !slices.Contains(online, cpu) {
			return Because(ErrInvalid, "cpu %d does not exist or is offline; online are %v", cpu, online)
		}
	}
	return nil
}

// IRQAffinity reads the CPUs of each interrupt of a device, by its number. Only interrupts that the driver uses are
// included: most drivers request them when the device is first brought up, so a device that is down and has none is
// brought up for a moment.
func (h *tuner) IRQAffinity(ctx context.Context, id ID) (map[int]string, error) {
	n, err := h.Find(id)
	if err != nil {
		return nil, err
	}
	now, vectors, err := h.affinity(n)
	if err == nil && now == nil && vectors > 0 && !n.Up {
		err = h.whileUp(ctx, n, func() error {
			return wait(ctx, irqBound, func() (bool, error) {
				now, _, err = h.affinity(n)
				return len(now) > 0, err
			})
		})
	}
	switch {
	case timedOut(err), err == nil && len(now) == 0:
		return nil, &Error{Dev: n.nameAndDriver(), Op: "look for its interrupts",
			Err: Because(ErrUnsupported, "it has no msi-x interrupts of its own in use")}
	case err != nil:
		return nil, &Error{Dev: n.nameAndDriver(), Op: "look for its interrupts", Err: err}
	}
	return now, nil
}

// affinity reads the interrupts in use and counts the vectors that the driver has.
func (h *tuner) affinity(n Netdev) (now map[int]string, vectors int, err error) {
	if !n.ID.IsPCI() {
		return nil, 0, nil
	}
	names, err := h.sys.list(pciDir(n.ID.PCI()) + "/msi_irqs")
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		irq, err := strconv.Atoi(name)
		if err != nil {
			return nil, 0, fmt.Errorf("msi_irqs: %w", err)
		}
		cpus, err := h.kernel.Affinity(irq)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if now == nil {
			now = map[int]string{}
		}
		now[irq] = cpus
	}
	return now, len(names), nil
}

// whileUp calls do while a device is up. One that was down is set down again, and is quiet meanwhile if it is a VF.
func (h *links) whileUp(ctx context.Context, n Netdev, do func() error) error {
	if n.Up {
		return do()
	}
	return h.whileQuiet(n, func() error {
		if err := h.open(ctx, n); err != nil {
			return err
		}
		return errors.Join(do(), h.setUp(n, false))
	})
}

// SpreadIRQs assigns the CPUs to a device's interrupts round-robin, in order of the interrupts' numbers. irqs is from
// IRQAffinity.
func (h *tuner) SpreadIRQs(id ID, c Cores, irqs map[int]string) error {
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	cpus := c.CPUs
	if c.Near {
		cpus, err = h.nearCPUs(n.ID.PCI())
	} else if err == nil {
		err = h.CheckCores(c)
	}
	if err != nil {
		return &Error{Dev: n.nameAndDriver(), Op: "spread interrupts", Err: err}
	}
	want := map[int]string{}
	for i, irq := range slices.Sorted(maps.Keys(irqs)) {
		want[irq] = strconv.Itoa(cpus[i%len(cpus)])
	}
	return h.setAffinities(n, want)
}

// setAffinities sets the CPUs of interrupts, and reads them back. A setting that the kernel has not applied yet,
// because the interrupt has not occurred since, survives setting the link down and overrides a new setting that is made
// then (Linux 6.12 without interrupt remapping): what was not accepted is set again while the device is up.
func (h *tuner) setAffinities(n Netdev, want map[int]string) error {
	left, err := h.setAffinitiesOnce(n, want)
	if err == nil && len(left) > 0 && !n.Up {
		err = h.whileUp(context.Background(), n, func() error {
			left, err = h.setAffinitiesOnce(n, left)
			return err
		})
	}
	for _, irq := range slices.Sorted(maps.Keys(left)) {
		if err == nil {
			err = h.irqError(n, irq, left[irq], Because(ErrInvalid, "the kernel keeps it elsewhere"))
		}
	}
	return err
}

// setAffinitiesOnce sets what differs from want and returns what still does.
func (h *tuner) setAffinitiesOnce(n Netdev, want map[int]string) (left map[int]string, _ error) {
	left = map[int]string{}
	for _, irq := range slices.Sorted(maps.Keys(want)) {
		cpus := want[irq]
		now, err := h.kernel.Affinity(irq)
		if err == nil && now == cpus {
			continue
		}
		if err == nil {
			err = h.kernel.SetAffinity(irq, cpus)
		}
		if err == nil {
			now, err = h.kernel.Affinity(irq)
		}
		if err != nil {
			return nil, h.irqError(n, irq, cpus, err)
		}
		if now != cpus {
			left[irq] = cpus
		}
	}
	return left, nil
}

// irqError explains why the CPUs of an interrupt could not be set.
func (h *tuner) irqError(n Netdev, irq int, cpus string, err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("it is managed by the kernel, which alone says where it goes: %w", err)
	}
	return &Error{Dev: n.nameAndDriver(), Op: fmt.Sprintf("send interrupt %d to cpu %s", irq, cpus), Err: err}
}

// restoreAffinity restores the CPUs of a device's interrupts. Interrupts that are no longer the device's are left
// alone: its driver has freed them, and another device may have their numbers.
func (h *tuner) restoreAffinity(n Netdev, was map[int]string) error {
	if len(was) == 0 {
		return nil
	}
	now, _, err := h.affinity(n)
	if err != nil {
		return &Error{Dev: n.nameAndDriver(), Op: "look for its interrupts", Err: err}
	}
	want := map[int]string{}
	for irq, cpus := range was {
		if _, ok := now[irq]; ok {
			want[irq] = cpus
		}
	}
	return h.setAffinities(n, want)
}

// restoreAffinityOfRebound restores the CPUs of the interrupts of a VF that was unbound and bound: its driver has other
// interrupts, in the same order, and requests them when the VF is first brought up. Interrupts that could go to every CPU
// can again. Nothing is done if the driver has another number of interrupts than before.
func (h *tuner) restoreAffinityOfRebound(ctx context.Context, id ID, was map[int]string) error {
	online, err := h.onlineCPUs()
	if err != nil {
		return err
	}
	chosen := func(cpus string) bool { return cpus != online.String() }
	if !slices.ContainsFunc(slices.Collect(maps.Values(was)), chosen) {
		return nil
	}
	n, err := h.Find(id)
	if err != nil {
		return err
	}
	if now, _, err := h.affinity(n); err != nil || len(now) > 0 { // it was not bound again
		return err
	}
	now, err := h.IRQAffinity(ctx, id)
	if err != nil || len(now) != len(was) {
		return err
	}
	before, want := slices.Sorted(maps.Keys(was)), map[int]string{}
	for i, irq := range slices.Sorted(maps.Keys(now)) {
		want[irq] = was[before[i]]
	}
	return h.setAffinities(n, want)
}

// CPUs are numbers of processors, in the order of use.
type CPUs []int

// maxCPU is more than any kernel supports (CONFIG_NR_CPUS is at most 8192 on x86-64).
const maxCPU = 1<<14 - 1

// ParseCPUs reads a list such as "2,4-7", the format of the kernel; of repeated numbers the first counts. The error
// matches ErrInvalid.
func ParseCPUs(text string) (CPUs, error) {
	all, ok := number.ParseList(text, maxCPU)
	if !ok {
		return nil, Because(ErrInvalid, "%q is not a list of cpus up to %d, such as 2,4-7", text, maxCPU)
	}
	return all, nil
}

// String returns "0-3,7": in order of the numbers, in the format of the kernel.
func (c CPUs) String() string {
	sorted := slices.Sorted(slices.Values(c))
	var parts []string
	for i := 0; i < len(sorted); {
		end := i
		for end+1 < len(sorted) && sorted[end+1] == sorted[end]+1 {
			end++
		}
		part := strconv.Itoa(sorted[i])
		if end > i {
			part += "-" + strconv.Itoa(sorted[end])
		}
		parts = append(parts, part)
		i = end + 1
	}
	return strings.Join(parts, ",")
}

// onlineCPUs reads which CPUs are online.
func (h *tuner) onlineCPUs() (CPUs, error) {
	text, ok, err := h.sys.text("devices/system/cpu/online")
	if err != nil || !ok {
		return nil, errNoCPUs(err)
	}
	return ParseCPUs(text)
}

func errNoCPUs(err error) error {
	if err == nil {
		err = ErrNotFound
	}
	return fmt.Errorf("which cpus are online: %w", err)
}

// nearCPUs reads which CPUs are on the NUMA node of a PCI function; all online CPUs if it has none.
func (h *tuner) nearCPUs(pci string) (CPUs, error) {
	online, err := h.onlineCPUs()
	if err != nil {
		return nil, err
	}
	node, ok, err := h.sys.number(pciDir(pci) + "/numa_node")
	if err != nil || !ok || node < 0 {
		return online, err
	}
	text, ok, err := h.sys.text(pciDir(pci) + "/local_cpulist")
	if err != nil || !ok || text == "" { // a node can have memory alone
		return online, err
	}
	near, err := ParseCPUs(text)
	near = slices.DeleteFunc(near, func(c int) bool { return !slices.Contains(online, c) })
	if len(near) == 0 {
		return online, err
	}
	return near, err
}

// Near returns true if cpus is not empty and all of them are on a PF's NUMA node.
func (h *tuner) Near(pf PF, cpus CPUs) (bool, error) {
	if len(cpus) == 0 {
		return false, nil
	}
	near, err := h.nearCPUs(pf.PCI())
	if err != nil {
		return false, &Error{Dev: pf.String(), Err: err}
	}
	return !slices.ContainsFunc(cpus, func(c int) bool { return !slices.Contains(near, c) }), nil
}
