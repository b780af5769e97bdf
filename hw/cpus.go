package hw

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CPUs are numbers of processors, in the order in which they are to be used.
type CPUs []int

// maxCPU is above what any kernel is built for (CONFIG_NR_CPUS is at most 8192 on x86-64).
const maxCPU = 1<<14 - 1

// ParseCPUs reads a list such as "2,4-7", as people and the kernel write it; of numbers that are in it twice the first
// counts. The error matches ErrInvalid.
func ParseCPUs(text string) (CPUs, error) {
	var all CPUs
	seen := map[int]bool{}
	for _, part := range strings.Split(strings.ReplaceAll(text, " ", ""), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 14)
		last, err2 := strconv.ParseUint(to, 10, 14)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("%q is not a list of cpus up to %d, such as 2,4-7: %w", text, maxCPU, ErrInvalid)
		}
		for cpu := int(first); cpu <= int(last); cpu++ {
			if !seen[cpu] {
				seen[cpu] = true
				all = append(all, cpu)
			}
		}
	}
	return all, nil
}

// String is "0-3,7": in order of the numbers, as the kernel writes it.
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

// onlineCPUs reads which CPUs work.
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

// nearCPUs reads which CPUs are on the NUMA node of a PCI function; all that are online where it belongs to none.
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

// Near tells whether some CPUs, at least one, are all on a PF's NUMA node.
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
