package rtnl

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// irqDir is a directory with the layout of /proc/irq, or the error of opening it. The error is returned by the methods
// that need the directory; the others work without.
type irqDir struct {
	root *os.Root
	err  error
}

func openIRQ(dir string) irqDir {
	if dir == "" {
		return irqDir{err: hw.Because(hw.ErrUnsupported, "the plugin was not given /proc/irq (see docs/tuning.md)")}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		// FromErrno would make ENOENT an interrupt that does not exist.
		return irqDir{err: fmt.Errorf("the plugin was not given /proc/irq (see docs/tuning.md): %w", err)}
	}
	return irqDir{root: root}
}

func (d irqDir) close() {
	if d.root != nil {
		_ = d.root.Close() // nothing is written through it
	}
}

// affinityOf returns the path of an interrupt's smp_affinity_list. Its directory exists from when a driver first
// requests the interrupt (kernel/irq/manage.c, __setup_irq) until the vector is freed, also after the driver has freed
// the interrupt (Linux 6.12).
func affinityOf(irq int) string { return path.Join(strconv.Itoa(irq), "smp_affinity_list") }

// Affinity implements [hw.Kernel].
func (d irqDir) Affinity(irq int) (string, error) {
	if d.err != nil {
		return "", d.err
	}
	b, err := d.root.ReadFile(affinityOf(irq))
	return strings.TrimSpace(string(b)), hw.FromErrno(err)
}

// SetAffinity implements [hw.Kernel].
func (d irqDir) SetAffinity(irq int, cpus string) error {
	if d.err != nil {
		return d.err
	}
	f, err := d.root.OpenFile(affinityOf(irq), os.O_WRONLY, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("the plugin was given /proc/irq, but not to write to (see docs/tuning.md): %w", hw.FromErrno(err))
	}
	if err != nil {
		return hw.FromErrno(err)
	}
	_, err = f.WriteString(cpus)
	return hw.FromErrno(errors.Join(err, f.Close()))
}
