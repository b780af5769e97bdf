package hw

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// sysfs reads attributes of /sys or of a tree like it. No path leads out of it: the file system of an os.Root refuses links
// and names that would.
type sysfs struct{ fs.FS }

// text returns an attribute without its trailing newline; ok is false if there is no such attribute.
func (s sysfs) text(name string) (text string, ok bool, err error) {
	b, err := fs.ReadFile(s.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("sysfs: %w", err)
	}
	return strings.TrimSpace(string(b)), true, nil
}

// head returns the first n bytes of a binary attribute; ok is false if they cannot be read.
func (s sysfs) head(name string, n int) (b []byte, ok bool) {
	f, err := s.Open(name)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b = make([]byte, n)
	_, err = io.ReadFull(f, b)
	return b, err == nil
}

// number returns a decimal attribute; ok is false if there is no such attribute.
func (s sysfs) number(name string) (n int, ok bool, err error) {
	t, ok, err := s.text(name)
	if !ok || err != nil {
		return 0, false, err
	}
	if n, err = strconv.Atoi(t); err != nil {
		return 0, false, fmt.Errorf("sysfs: %s: %w", name, err)
	}
	return n, true, nil
}

// link returns the last element of the target of a symbolic link, "" if there is no such link.
func (s sysfs) link(name string) (string, error) {
	t, err := s.target(name)
	if t == "" || err != nil {
		return "", err
	}
	return path.Base(t), nil
}

// target returns the target of a symbolic link, "" if there is no such link.
func (s sysfs) target(name string) (string, error) {
	t, err := fs.ReadLink(s.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("sysfs: %w", err)
	}
	return t, nil
}

// list returns the names in a directory in order, none if it does not exist.
func (s sysfs) list(dir string) ([]string, error) {
	entries, err := fs.ReadDir(s.FS, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sysfs: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// exists returns true if there is an entry of that name. It is for entries that may be missed if they cannot be read.
func (s sysfs) exists(name string) bool {
	ok, err := s.present(name)
	return ok && err == nil
}

// present returns true if there is an entry of that name. An entry that cannot be read, as by a process without free
// file descriptors, is an error, not absent.
func (s sysfs) present(name string) (bool, error) {
	_, err := fs.Lstat(s.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sysfs: %w", err)
	}
	return true, nil
}

// isPCI reports whether s is a PCI address in the kernel's form, domain:bus:device.function, such as 0000:03:00.1.
func isPCI(s string) bool {
	hex := func(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
	domain, rest, _ := strings.Cut(s, ":")
	return len(domain) >= 4 && hex(domain) && len(rest) == len("00:00.0") && hex(rest[:2]) && rest[2] == ':' && hex(rest[3:5]) &&
		rest[5] == '.' && '0' <= rest[6] && rest[6] <= '7'
}

// ParsePCI returns a PCI address in the form of the kernel; ok is false if s is none. Users leave out domain 0000 and write capitals; both are accepted.
func ParsePCI(s string) (pci string, ok bool) {
	s = strings.ToLower(s)
	if strings.Count(s, ":") == 1 {
		s = "0000:" + s
	}
	return s, isPCI(s)
}

// pciDir returns the directory of a PCI device, relative to the root of sysfs.
func pciDir(pci string) string { return "bus/pci/devices/" + pci }

// netdevDir returns the directory of a netdev below its device, which stays valid if another netdev takes the name; ""
// if there is no netdev of that name.
func (h *finder) netdevDir(netdev string) (string, error) {
	t, err := h.sys.target("class/net/" + netdev)
	if t == "" || err != nil {
		return "", err
	}
	return path.Join("class/net", t), nil
}

// virtioDevice matches the names of devices on the virtio bus.
var virtioDevice = regexp.MustCompile(`^virtio[0-9]+$`)

// virtioIn returns the virtio devices in directories.
func (s sysfs) virtioIn(dirs ...string) (found []string, _ error) {
	for _, dir := range dirs {
		entries, err := s.list(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if virtioDevice.MatchString(e) {
				found = append(found, dir+"/"+e)
			}
		}
	}
	return found, nil
}

// pciOf returns the PCI address of the function that a netdev belongs to, by its directory; "" if it belongs to none or
// to another device on the function: a subfunction (…/0000:03:00.0/mlx5_core.sf.4/net/enp3s0f0s88) or a USB NIC, of
// which there may be many. A virtio NIC is one level further down and belongs to its function
// (…/0000:00:03.0/virtio1/net/eth0).
func pciOf(netdevDir string) string {
	device, _, _ := strings.Cut(netdevDir, "/net/")
	if virtioDevice.MatchString(path.Base(device)) {
		device = path.Dir(device)
	}
	if pci := path.Base(device); isPCI(pci) {
		return pci
	}
	return ""
}

// netdevsOf returns the names of a PCI function's netdevs that are in the host's namespace. sysfs shows only those: the
// directory of a netdev that is in a container does not exist.
func (h *finder) netdevsOf(pci string) ([]string, error) {
	dir, err := h.netDir(pci)
	if err != nil {
		return nil, err
	}
	return h.sys.list(dir)
}

// hasNetdev returns true if a PCI function has a netdev in any namespace: the directory that it is in exists, and is empty in the
// host if it is in another one (drivers/base/core.c, get_device_parent and cleanup_glue_dir, Linux 6.12).
func (h *finder) hasNetdev(pci string) (bool, error) {
	dir, err := h.netDir(pci)
	if err != nil {
		return false, err
	}
	return h.sys.present(dir)
}

// netDir returns the directory that a PCI function's netdevs are in.
func (h *finder) netDir(pci string) (string, error) {
	own := pciDir(pci) + "/net"
	if h.sys.exists(own) {
		return own, nil
	}
	entries, err := h.sys.list(pciDir(pci))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e, "virtio") {
			return pciDir(pci) + "/" + e + "/net", nil
		}
	}
	return own, nil
}

// checkPresent returns nil if there is a PCI function with that address; otherwise the error matches ErrNotFound, or
// says why it is not known.
func (h *finder) checkPresent(pci string) error {
	ok, err := h.sys.present(pciDir(pci))
	if err == nil && !ok {
		err = ErrNotFound
	}
	return err
}

// goingAway returns true if an attribute could not be read because its netdev is being unregistered: rtnetlink does not
// list it any more, and its directory still exists (net/core/net-sysfs.c, netdev_show, Linux 6.12: EINVAL; ENODEV is
// from sysfs).
func goingAway(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV)
}

// driverOf returns the name of the driver that a PCI function is bound to, "" if it is not bound.
func (h *finder) driverOf(pci string) (string, error) { return h.sys.link(pciDir(pci) + "/driver") }
