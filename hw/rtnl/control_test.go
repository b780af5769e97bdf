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
