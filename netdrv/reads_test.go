package netdrv_test

import (
	"context"
	"io/fs"
	"maps"
	"sync"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// A countingKernel counts the reads of links and VFs. It reports no changes of links: the reconciler, which would look at them, is not to be counted.
type countingKernel struct {
	hw.Kernel
	mu    sync.Mutex // guards reads
	reads map[string]int
}

// count counts one read.
func (k *countingKernel) count(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads[what]++
}

// take returns the counts, and begins again at zero.
func (k *countingKernel) take() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	had := maps.Clone(k.reads)
	clear(k.reads)
	return had
}

func (k *countingKernel) Watch(context.Context) (<-chan struct{}, error) {
	return make(chan struct{}), nil
}

func (k *countingKernel) VFs(pf int) (map[int]hw.VFState, error) {
	k.count("vfs of a pf")
	return k.Kernel.VFs(pf)
}

func (k *countingKernel) Links() ([]hw.Link, error) {
	k.count("all links")
	return k.Kernel.Links()
}

func (k *countingKernel) LinkNamed(name string) (hw.Link, error) {
	k.count("a link")
	return k.Kernel.LinkNamed(name)
}

func (k *countingKernel) LinkAt(index int) (hw.Link, error) {
	k.count("a link")
	return k.Kernel.LinkAt(index)
}

// A countingSys counts the reads of a sysfs.
type countingSys struct {
	fs.FS
	of *countingKernel
}

func (s countingSys) Open(name string) (fs.File, error) {
	s.of.count("sysfs")
	return s.FS.Open(name)
}

func (s countingSys) ReadFile(name string) ([]byte, error) {
	s.of.count("sysfs")
	return fs.ReadFile(s.FS, name)
}

func (s countingSys) ReadDir(name string) ([]fs.DirEntry, error) {
	s.of.count("sysfs")
	return fs.ReadDir(s.FS, name)
}

func (s countingSys) ReadLink(name string) (string, error) {
	s.of.count("sysfs")
	return fs.ReadLink(s.FS, name)
}

func (s countingSys) Lstat(name string) (fs.FileInfo, error) {
	s.of.count("sysfs")
	return fs.Lstat(s.FS, name)
}

// TestReads bounds what a start on a VF, and its end, read of the kernel. What a PF has set for its VFs is asked of the driver of the NIC, VF by
// VF, and a listing of all links takes as long as the host has containers. Each read that is added is paid for by each docker run.
func TestReads(t *testing.T) {
	for name, c := range map[string]struct {
		option     string
		start, end map[string]int
	}{
		// What the VFs have, what is to be set, and what is set in the end.
		"nothing to set": {"spoofchk=on", map[string]int{"vfs of a pf": 3, "all links": 1, "a link": 12, "sysfs": 115},
			map[string]int{"vfs of a pf": 1, "a link": 8, "sysfs": 110}},
		// And once more after it was set, and after it was restored.
		"a vlan": {"vlan=100", map[string]int{"vfs of a pf": 4, "all links": 1, "a link": 12, "sysfs": 115},
			map[string]int{"vfs of a pf": 2, "a link": 8, "sysfs": 110}},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				k := &countingKernel{Kernel: m.kernel, reads: map[string]int{}}
				m.stop()
				m.kernel.Sys = countingSys{m.kernel.Sys, k}
				m.startOn(m.store, k)
				pf := igb()
				pf.VFCarrierAfter = 0 // it is polled
				m.kernel.AddPF(pf)
				m.mustCreate("n", "netdevice=ens1f0", c.option)
				m.mustRun("first", "n") // which binds the VF
				m.end("first")
				m.settled()
				k.take()
				m.mustRun("web", "n")
				atMost(t, "the start", k.take(), c.start)
				m.end("web")
				atMost(t, "the end", k.take(), c.end)
			})
		})
	}
}

// atMost checks counts.
func atMost(t *testing.T, of string, got, most map[string]int) {
	t.Helper()
	for what, n := range got {
		if n > most[what] {
			t.Errorf("%s reads %s %d times, want at most %d", of, what, n, most[what])
		}
	}
}
