package hw

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// handoverName returns the name under which a device goes into a container and comes home: no other device has it. Under its
// own name it could do neither: the kernel refuses to move a device to where its name, or an alternative name of it, is taken
// (EEXIST), such as eth1 in a container that has an eth1 already, and an engine leaves a device in the container without a
// word if it cannot rename it for its way home.
func (id ID) handoverName() string {
	sum := sha256.Sum256([]byte("handed over\x00" + string(id)))
	return fmt.Sprintf("pt%x", sum[:6])
}

// HandOver gives a device in the host that is about to be moved into a container a name that no other device has, and takes its
// alternative names from it, which could be in the way there, too; was has all of them. A device that the plugin has created
// has such a name from the start. A device that is up is set down if the kernel demands it. HandOver may be repeated after any
// failure.
func (h *links) HandOver(id ID, was Snapshot) (Netdev, error) {
	n, err := h.Find(id)
	if err != nil || id.IsMade() {
		return n, err
	}
	if err := h.rename(n, id.handoverName(), h.setDownIfNeeded); err != nil {
		return n, err
	}
	if n, err = h.Find(id); err != nil || was.AltNames == nil { // a record of an early version does not have them
		return n, err
	}
	for _, name := range n.AltNames {
		err := wrapped(n.Name, "remove alternative name "+name, h.kernel.RemoveAltName(n.Index, name))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return n, err
		}
	}
	n.AltNames = nil
	return n, nil
}
