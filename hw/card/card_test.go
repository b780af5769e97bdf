package card

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// TestSeries: each setting of a record is found by what it sets, so that the fake kernel finds it; other values are like one of them, or like none.
func TestSeries(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range series() {
		if got := NameOf(s.attr, s.want); got != s.name || seen[s.name] {
			t.Errorf("%s is found as %q", s.name, got)
		}
		seen[s.name] = true
	}
	for _, c := range []struct {
		attr hw.VFAttr
		like hw.VFState
		want string
	}{
		{hw.VFMAC, hw.VFState{MAC: noMAC}, MACNone},
		{hw.VFMAC, hw.VFState{MAC: "33:33:00:00:00:01"}, MACMulticast},
		{hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 7, QoS: 1, Proto: hw.Dot1AD}}, VLANDot1AD},
		{hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 4096}}, ""},
		{hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 5, QoS: 8}}, ""},
		{hw.VFRate, hw.VFState{Rate: hw.Rate{Min: 5}}, RateMin},
	} {
		if got := NameOf(c.attr, c.like); got != c.want {
			t.Errorf("%s is like %q, want %q", c.attr.Op(c.like), got, c.want)
		}
	}
}

// TestErrnos: a step has the errno that it was recorded with, by its name.
func TestErrnos(t *testing.T) {
	for name, no := range map[string]unix.Errno{"EINVAL": unix.EINVAL, "EOPNOTSUPP": unix.EOPNOTSUPP, "ENOTSUPP": 524, "EPERM": unix.EPERM} {
		if got := errnoName(hw.FromErrno(no)); got != name {
			t.Errorf("%d is called %s", int(no), got)
		}
		if err := (Step{Errno: name}).Error(); !errors.Is(err, no) {
			t.Errorf("%s is %v", name, err)
		}
	}
	if err := (Step{}).Error(); err != nil || errnoName(nil) != "" {
		t.Errorf("no error is %v", err)
	}
	if err := (Step{Errno: "the driver said no"}).Error(); !errors.Is(err, hw.ErrInvalid) {
		t.Errorf("an error without an errno is %v", err)
	}
}

// TestRatesWithoutLink: what a driver refuses about rates while its PF has no link is not known; what it accepts is.
func TestRatesWithoutLink(t *testing.T) {
	r := &Reaction{Steps: []Step{{Set: RateMax, Errno: "EINVAL"}, {Set: VLAN, Errno: "EINVAL"}, {Set: RateMin}}}
	for set, want := range map[string]bool{RateMax: false, VLAN: true, RateMin: true, MAC: false} {
		if _, known := r.Step(set); known != want {
			t.Errorf("%s is known: %t", set, known)
		}
	}
	if _, known := (*Reaction)(nil).Step(VLAN); known {
		t.Error("a card without reactions has some")
	}
}

// TestPrivate: a word of the host is found whole, in any case, and not in the middle of another.
func TestPrivate(t *testing.T) {
	const text = `{"kernel": "6.12.1-Web7", "mac": "02:00:ca:4d:00:01", "flag": "table_node"}`
	for word, found := range map[string]bool{"web7": true, "node": false, "02:00:ca:4d:00:01": true, "52:54:00:00:00:01": false, "": false, "able": false} {
		if err := CheckPrivate(text, word); (err != nil) != found {
			t.Errorf("%q: %v", word, err)
		}
	}
}

// TestDisguise: the same MAC is disguised the same, another otherwise; those that mean none stay.
func TestDisguise(t *testing.T) {
	var r Recorder
	a, b, guid := r.disguised("b8:59:9f:01:02:03"), r.disguised("b8:59:9f:01:02:04"), r.disguised("b8:59:9f:03:00:01:02:03")
	if a != "02:00:ca:4d:00:01" || b != "02:00:ca:4d:00:02" || guid != "02:00:ca:4d:00:00:00:03" || r.disguised("b8:59:9f:01:02:03") != a {
		t.Errorf("%s %s %s", a, b, guid)
	}
	for _, none := range []string{noMAC, "ff:ff:ff:ff:ff:ff"} {
		if r.disguised(none) != none {
			t.Errorf("%s is disguised", none)
		}
	}
}
