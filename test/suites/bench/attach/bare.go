package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/mellanox/passthrough/internal/retry"
)

// A bareVF is a VF that is set up with nothing but the calls that the kernel needs for it.
type bareVF struct {
	pf    netlink.Link
	index int
	pci   string // folder in /sys/bus/pci/devices
	mac   net.HardwareAddr
}

// newBareVF returns VF 0 of a PF that has VFs.
func newBareVF(t *testing.T, pf string) *bareVF {
	t.Helper()
	link, err := netlink.LinkByName(pf)
	if err != nil {
		t.Fatal(err)
	}
	pci, err := filepath.EvalSymlinks("/sys/class/net/" + pf + "/device/virtfn0")
	if err != nil {
		t.Fatal(err)
	}
	return &bareVF{pf: link, pci: pci, mac: net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}}
}

// attach does what a start on a network without options does to a VF: it gets a MAC and the spoof check through its PF, its driver is bound
// anew, which is how an untrusted VF of igb gets the MAC, and it is set up until it has carrier and down again.
func (v *bareVF) attach() error {
	v.mac[5]++
	name, err := v.netdev()
	if err != nil {
		return err
	}
	driver, err := filepath.EvalSymlinks(v.pci + "/driver")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetVfHardwareAddr(v.pf, v.index, v.mac), netlink.LinkSetVfSpoofchk(v.pf, v.index, true)); err != nil {
		return err
	}
	pci := filepath.Base(v.pci)
	for _, write := range [][2]string{{driver + "/unbind", pci}, {v.pci + "/driver_override", filepath.Base(driver)}, {driver + "/bind", pci},
		{v.pci + "/driver_override", "\n"}} { // the plugin's vfs are bound only with an override
		if err := os.WriteFile(write[0], []byte(write[1]), 0o200); err != nil {
			return err
		}
	}
	if name, err = v.netdev(); err != nil {
		return err
	}
	return upAndDown(name)
}

// makeVFs gives a PF without VFs n of them, waits until each has a netdev, and sets one up until it has carrier and down again.
func makeVFs(pf string, n int) error {
	if err := setNumVFs(pf, n); err != nil {
		return err
	}
	err := retry.Poll(context.Background(), time.Millisecond, time.Minute, func() (bool, error) {
		entries, err := filepath.Glob("/sys/class/net/" + pf + "/device/virtfn*/net/*")
		return len(entries) == n, err
	})
	if err != nil {
		return fmt.Errorf("netdevs of %d VFs of %s: %w", n, pf, err)
	}
	vf := bareVF{pci: "/sys/class/net/" + pf + "/device/virtfn0"}
	name, err := vf.netdev()
	if err != nil {
		return err
	}
	return upAndDown(name)
}

// setNumVFs writes the number of a PF's VFs; the kernel answers when all are made and bound, or removed.
func setNumVFs(pf string, n int) error {
	return os.WriteFile("/sys/class/net/"+pf+"/device/sriov_numvfs", []byte(strconv.Itoa(n)), 0o200)
}

// netdev returns the name of the VF's netdev.
func (v *bareVF) netdev() (string, error) {
	entries, err := os.ReadDir(v.pci + "/net")
	if err != nil || len(entries) != 1 {
		return "", fmt.Errorf("%s has %d netdevs (%w)", v.pci, len(entries), err)
	}
	return entries[0].Name(), nil
}

// upAndDown sets a netdev up, waits for its carrier, and sets it down.
func upAndDown(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	bound := time.After(time.Minute)
	for {
		if now, err := netlink.LinkByIndex(link.Attrs().Index); err != nil || now.Attrs().OperState == netlink.OperUp {
			return errors.Join(err, netlink.LinkSetDown(link))
		}
		select {
		case <-updates:
		case <-bound:
			return fmt.Errorf("%s has no carrier after a minute", name)
		}
	}
}
