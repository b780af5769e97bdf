package hw

import (
	"fmt"
	"strings"
)

// LinkState is what a container may change about a netdev that is lent to it and that survives the way home (Linux 6.18:
// MTU, MAC, alias, flags and queue length do, and alternative names, see Snapshot; addresses and routes do not).
type LinkState struct {
	Name     string
	Alias    string
	MAC      MAC
	MTU      int
	TxQLen   int
	Promisc  bool
	AllMulti bool
	NoARP    bool `json:",omitempty"`
	// NoMulticast is put so that a record of before it was recorded says what most links are.
	NoMulticast bool `json:",omitempty"`
	Up          bool
	Master      string // name of the bond or bridge that it is a port of; "" for none
}

// linkAttrs is what is put back on a link that is down, in this order. The name is put back before it and the alias
// after it, because names collide and the alias is what the device is found by.
var linkAttrs = []attr[LinkState, LinkChange]{
	row("mac", func(s *LinkState) *MAC { return &s.MAC }, func(c *LinkChange) **MAC { return &c.MAC }),
	row("mtu", func(s *LinkState) *int { return &s.MTU }, func(c *LinkChange) **int { return &c.MTU }),
	row("txqueuelen", func(s *LinkState) *int { return &s.TxQLen }, func(c *LinkChange) **int { return &c.TxQLen }),
	row("promisc", func(s *LinkState) *bool { return &s.Promisc }, func(c *LinkChange) **bool { return &c.Promisc }),
	row("allmulti", func(s *LinkState) *bool { return &s.AllMulti }, func(c *LinkChange) **bool { return &c.AllMulti }),
	row("noarp", func(s *LinkState) *bool { return &s.NoARP }, func(c *LinkChange) **bool { return &c.NoARP }),
	row("nomulticast", func(s *LinkState) *bool { return &s.NoMulticast }, func(c *LinkChange) **bool { return &c.NoMulticast }),
}

// linkState is the state of a link; links resolves its master's name. A mark left by a loan that was cut short is not
// part of the device's own state.
func linkState(l Link, links []Link) LinkState {
	s := LinkState{Name: l.Name, Alias: l.Alias, MAC: l.MAC, MTU: l.MTU, TxQLen: l.TxQLen,
		Promisc: l.Promisc, AllMulti: l.AllMulti, NoARP: l.NoARP, NoMulticast: l.NoMulticast, Up: l.Up}
	if strings.HasPrefix(s.Alias, ID("").mark()) {
		s.Alias = ""
	}
	for _, m := range links {
		if l.Master != 0 && m.Index == l.Master {
			s.Master = m.Name
		}
	}
	return s
}

// LinkSpec is how a netdev is to be lent: the values, and how much each attribute matters. An attribute that Policies does
// not name is left as it is; "mac" is not among them.
type LinkSpec struct {
	LinkState
	Policies map[string]Policy `json:"Need"` // by attribute name: "mtu", "txqueuelen", "promisc", "allmulti"
}

// SetLink sets on a netdev in the host, which is down, what is wished for it, and verifies it. These survive the way into a
// container. limit is the MTU that the device cannot exceed, its PF's; 0 for none.
func (h *Host) SetLink(n Netdev, w LinkSpec, limit int) (Netdev, error) {
	if len(w.Policies) == 0 {
		return n, nil
	}
	if limit > 0 && w.Policies["mtu"] == Required && w.MTU > limit {
		return n, &Error{Dev: n.Name, Op: fmt.Sprintf("set mtu %d", w.MTU), Err: fmt.Errorf(
			"its pf has mtu %d, which a vf cannot exceed; raise the pf's first: %w", limit, ErrInvalid)}
	}
	w.Name = n.Name
	if err := h.moveLink(n.ID, w.LinkState, linkAttrs, func(name string) Policy { return w.Policies[name] }); err != nil {
		return n, err
	}
	return h.Find(n.ID)
}

// always is the need of everything that is put back.
func always(string) Policy { return Required }

// moveLink drives a link in the host to want.
func (h *Host) moveLink(id ID, want LinkState, attrs []attr[LinkState, LinkChange], policy func(string) Policy) error {
	var index int
	return mover[LinkState, LinkChange]{
		dev:   want.Name,
		attrs: attrs,
		read: func() (LinkState, error) {
			n, err := h.Find(id)
			index = n.Index
			return linkState(n.Link, nil), err
		},
		set:    func(c LinkChange) error { return h.kernel.SetLink(index, c) },
		policy: policy,
	}.move(want)
}

// setLink changes one thing on a link and says on which.
func (h *Host) setLink(n Netdev, op string, c LinkChange) error {
	if err := h.kernel.SetLink(n.Index, c); err != nil {
		return &Error{Dev: n.Name, Op: op, Err: err}
	}
	return nil
}

func (h *Host) setUp(n Netdev, up bool) error {
	op := "set down"
	if up {
		op = "set up"
	}
	return h.setLink(n, op, LinkChange{Up: &up})
}
