package rtnl

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// A flowNIC has flow rules by their location, as net/ethtool/ioctl.c and a driver show them (ethtool_get_rxnfc and ethtool_set_rxnfc,
// Linux 6.12). No NIC of the other layers has any.
type flowNIC map[uint32][]byte

func (n flowNIC) ioctl(_ string, c command) error {
	if len(c) < rxnfcSize {
		return unix.EOPNOTSUPP
	}
	at := c.at(rxnfcLocation)
	switch c.at(0) {
	case unix.ETHTOOL_GRXCLSRLCNT:
		c.put(rxnfcCount, uint32(len(n)))
	case unix.ETHTOOL_GRXCLSRLALL:
		i := 0
		for location := range n {
			c.put(rxnfcLocs+4*i, location)
			i++
		}
		c.put(rxnfcCount, uint32(i))
	case unix.ETHTOOL_GRXCLSRULE:
		if n[at] == nil {
			return unix.ENOENT
		}
		copy(c[rxnfcSpec:], n[at])
	case unix.ETHTOOL_SRXCLSRLINS:
		n[at] = bytes.Clone(c[rxnfcSpec:rxnfcCount])
	case unix.ETHTOOL_SRXCLSRLDEL:
		if n[at] == nil {
			return unix.ENOENT
		}
		delete(n, at)
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}

// TestFlowRules: flow rules are listed, removed, and added again as they were.
func TestFlowRules(t *testing.T) {
	t.Parallel()
	nic := flowNIC{}
	c := controls{ioctl: nic.ioctl}
	rules := func() []hw.Control {
		t.Helper()
		all, err := c.flowRules("nic")
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(all, func(a, b hw.Control) int { return strings.Compare(a.Name, b.Name) })
		return all
	}
	if got := rules(); len(got) > 0 {
		t.Errorf("rules of nothing: %v", got)
	}
	for at, first := range map[uint32]byte{3: 0xaa, 700: 0xbb} {
		spec := command(bytes.Repeat([]byte{first}, flowSize))
		spec.put(flowLocation, at)
		nic[at] = spec
	}
	was := rules()
	if len(was) != 2 || was[0].Name != "3" || was[1].Name != "700" || was[1].Body[0] != 0xbb || len(was[0].Body) != flowSize {
		t.Fatalf("rules are %v", was)
	}
	for _, r := range was {
		if err := c.setFlowRule("nic", hw.Control{Kind: r.Kind, Name: r.Name}); err != nil {
			t.Error(err)
		}
	}
	if got := rules(); len(got) > 0 {
		t.Errorf("left are %v", got)
	}
	for _, r := range was {
		if err := c.setFlowRule("nic", r); err != nil {
			t.Error(err)
		}
	}
	if got := rules(); !slices.EqualFunc(got, was, func(a, b hw.Control) bool { return a.Name == b.Name && bytes.Equal(a.Body, b.Body) }) {
		t.Errorf("rules are %v, were %v", got, was)
	}
	for _, r := range []hw.Control{{Name: "x"}, {Name: "-1"}, {Name: "5", Body: []byte{1}}} {
		if err := c.setFlowRule("nic", r); err != unix.EINVAL {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if got, err := c.rss("nic"); err == nil || !isMissing(err) {
		t.Errorf("rss of a nic without: %v, %v", got, err)
	}
}

// An rssNIC has a table of four places for two queues and a key of two bytes; its default is its own.
type rssNIC struct {
	table      [4]uint32
	configured bool
}

func (n *rssNIC) ioctl(_ string, c command) error {
	size := c.at(rxfhIndirSize)
	switch c.at(0) {
	case unix.ETHTOOL_GRSSH:
		c.put(rxfhIndirSize, 4)
		c.put(rxfhKeySize, 2)
		for i := range min(size, 4) {
			c.put(rxfhConfig+4*int(i), n.table[i])
		}
	case unix.ETHTOOL_SRSSH:
		n.configured = size > 0
		n.table = [4]uint32{0, 1, 0, 1}
		for i := range size {
			n.table[i] = c.at(rxfhConfig + 4*int(i))
		}
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}

// TestRSS: a table that spreads flows as the default does is restored by the default, so that the number of queues can be changed; another
// is set.
func TestRSS(t *testing.T) {
	t.Parallel()
	for table, configured := range map[[4]uint32]bool{{0, 0, 1, 1}: false, {0, 1, 0, 1}: false, {0, 0, 0, 1}: true, {1, 1, 1, 1}: true} {
		nic := &rssNIC{table: table}
		c := controls{ioctl: nic.ioctl}
		was, err := c.rss("nic")
		if err != nil || len(was) != 1 {
			t.Fatalf("%v, %v", was, err)
		}
		nic.table = [4]uint32{0, 0, 0, 0}
		if err := c.setRSS("nic", was[0].Body); err != nil {
			t.Error(err)
		}
		if nic.configured != configured || configured && nic.table != table {
			t.Errorf("%v is restored as %v, configured: %v", table, nic.table, nic.configured)
		}
	}
	if err := (controls{}).setRSS("nic", []byte{1}); err != unix.EINVAL {
		t.Error(err)
	}
}
