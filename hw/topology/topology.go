// Package topology tells how far PCI functions of a machine are from each other, and which of them are GPUs, by sysfs. What two functions send
// each other goes through the switches and root ports that they have in common: the fewer, the faster, and the less of it is other
// functions' business.
package topology

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNone says that there is no such function.
var ErrNone = errors.New("no such pci device")

// A Topology is the PCI functions of a machine. It has no state of its own.
type Topology struct{ Sys fs.FS } // sysfs

// A Level is what two functions have in common. A lower one is nearer.
type Level int

// Levels.
const (
	RootPort    Level = iota // a root port, and the PCIe switches below it, if there are any
	RootComplex              // a part of a processor that has several root ports (a host bridge)
	Node                     // a NUMA node
	Machine                  // nothing else
)

// String returns the level as the end of a sentence about two functions.
func (l Level) String() string {
	return [...]string{"behind the same root port", "on the same root complex", "on the same NUMA node", "elsewhere in this machine"}[l]
}

// A Distance says how far two functions are from each other.
type Distance struct {
	Level Level
	// Hops are the bridges from one to the other, as far as these are on one root complex.
	Hops int
}

// Compare returns a number less than 0 if d is nearer than other, and more than 0 if it is farther.
func (d Distance) Compare(other Distance) int {
	return cmp.Or(cmp.Compare(d.Level, other.Level), cmp.Compare(d.Hops, other.Hops))
}

// dir is the directory of all PCI functions in sysfs.
const dir = "bus/pci/devices/"

// Distance returns how far two functions are from each other, which are given by their PCI addresses. The error matches [ErrNone] if there is
// none with one of these.
func (t Topology) Distance(a, b string) (Distance, error) {
	wayA, err := t.way(a)
	if err != nil {
		return Distance{}, err
	}
	wayB, err := t.way(b)
	if err != nil {
		return Distance{}, err
	}
	same := 0
	for same < min(len(wayA), len(wayB)) && wayA[same] == wayB[same] {
		same++
	}
	hops := len(wayA) + len(wayB) - 2*same
	switch {
	case same > 1:
		return Distance{RootPort, hops}, nil
	case same == 1:
		return Distance{RootComplex, hops}, nil
	}
	nodeA, errA := t.Node(a)
	nodeB, errB := t.Node(b)
	if nodeA >= 0 && nodeA == nodeB {
		return Distance{Level: Node}, nil
	}
	return Distance{Level: Machine}, cmp.Or(errA, errB)
}

// rootComplex matches the name of the directory that a root complex has in sysfs (drivers/pci/probe.c, pci_register_host_bridge, Linux 6.12).
var rootComplex = regexp.MustCompile(`^pci[0-9a-f]{4,}:[0-9a-f]{2}$`)

// way returns what is between the processor and a function: the root complex ("pci0000:3a"), the root port, and the ports of PCIe switches. A
// function that is directly on the root complex counts as behind a root port of its own, so that only functions of one device, which are
// one function to the bus, share it.
func (t Topology) way(pci string) ([]string, error) {
	target, err := fs.ReadLink(t.Sys, dir+pci)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		return nil, fmt.Errorf("%s: %w", pci, ErrNone)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", pci, err)
	}
	elements := strings.Split(path.Dir(target), "/")
	root := slices.IndexFunc(elements, rootComplex.MatchString)
	elements = elements[max(0, root):]
	if len(elements) == 1 { // directly on the root complex
		device, _, _ := strings.Cut(pci, ".")
		elements = append(elements, device)
	}
	return elements, nil
}

// Node returns the NUMA node of a function, -1 if it has none.
func (t Topology) Node(pci string) (int, error) {
	text, err := fs.ReadFile(t.Sys, dir+pci+"/numa_node")
	switch {
	case errors.Is(err, fs.ErrNotExist): // a kernel without CONFIG_NUMA
		return -1, nil
	case err != nil:
		return -1, fmt.Errorf("%s: %w", pci, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1, fmt.Errorf("%s: numa_node: %w", pci, err)
	}
	return n, nil
}

// Nearest returns which of some functions are the nearest to one, and how far that is. It skips those that are not there any more; without
// any, near is empty, and the distance more than any other.
func (t Topology) Nearest(to string, of []string) (near []string, d Distance, err error) {
	d = Distance{Machine, math.MaxInt}
	for _, other := range of {
		o, err := t.Distance(to, other)
		switch {
		case errors.Is(err, ErrNone):
			continue
		case err != nil:
			return nil, d, err
		case o.Compare(d) < 0:
			near, d = nil, o
		}
		if o == d {
			near = append(near, other)
		}
	}
	return near, d, nil
}

// onBoard are the PCI IDs of makers whose display controllers are the consoles of servers: ASPEED, Matrox (iDRAC, iLO) and Huawei (iBMC).
var onBoard = []string{"0x1a03", "0x102b", "0x19e5"}

// GPUs returns the PCI addresses of the GPUs and other accelerators, in order: 3D controllers (class 0302), other display controllers (0380),
// processing accelerators (1200), and VGA controllers (0300) but for those that are a server's console. include/linux/pci_ids.h, Linux 6.12.
func (t Topology) GPUs() ([]string, error) {
	entries, err := fs.ReadDir(t.Sys, strings.TrimSuffix(dir, "/"))
	if errors.Is(err, fs.ErrNotExist) { // a machine without PCI
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pci devices: %w", err)
	}
	var gpus []string
	for _, e := range entries {
		class, err := t.text(e.Name(), "class")
		if err != nil {
			return nil, err
		}
		vendor, err := t.text(e.Name(), "vendor")
		if err != nil {
			return nil, err
		}
		switch class[:min(len(class), len("0x0300"))] {
		case "0x0302", "0x0380", "0x1200":
			gpus = append(gpus, e.Name())
		case "0x0300":
			if !slices.Contains(onBoard, vendor) {
				gpus = append(gpus, e.Name())
			}
		}
	}
	return gpus, nil
}

// text returns an attribute of a function, "" if there is none of that name: the function may just have gone.
func (t Topology) text(pci, name string) (string, error) {
	b, err := fs.ReadFile(t.Sys, dir+pci+"/"+name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", pci, err)
	}
	return strings.TrimSpace(string(b)), nil
}
