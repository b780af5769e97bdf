package option_test

import (
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/option"
)

// TestNumbers: a number that the user may have meant otherwise is refused, in every option that is a number or a duration. The record of a pool
// that an older version created with it stays readable.
func TestNumbers(t *testing.T) {
	for name, number := range map[string]string{"prefetch": "8", "quarantine": "30s", "sticky": "30s"} {
		if _, err := option.Parse(map[string]string{name: number}); err != nil {
			t.Error(err)
		}
		for _, text := range []string{"0" + number, "+" + number, "-" + number, " " + number, number + " ", number + "\n", "", "0x" + number} {
			if c, err := option.Parse(map[string]string{name: text}); err == nil {
				t.Errorf("%s=%q is accepted: %+v", name, text, c)
			}
		}
	}
	c, err := option.ParseStored(map[string]string{"prefetch": "010", "quarantine": "+30s", "sticky": "1h030m", "reuse": "immediate"})
	if err != nil || c.Prefetch != 10 || c.Quarantine != 30*time.Second || c.Sticky != 90*time.Minute || !c.Lowest {
		t.Errorf("stored options: %+v, %v", c, err)
	}
}

// TestStickyDefault: an address is kept for its container for an hour, unless the user says otherwise, wants it to be given again at once, or
// leaves the choice to a DHCP server.
func TestStickyDefault(t *testing.T) {
	for _, test := range []struct {
		options   map[string]string
		sticky    time.Duration
		byDefault bool
	}{
		{nil, time.Hour, true},
		{map[string]string{"quarantine": "30s", "reuse": "last"}, time.Hour, true},
		{map[string]string{"sticky": "1h"}, time.Hour, false},
		{map[string]string{"sticky": "off"}, 0, false},
		{map[string]string{"reuse": "immediate"}, 0, false},
		{map[string]string{"reuse": "immediate", "sticky": "24h"}, 24 * time.Hour, false},
		{map[string]string{"dhcp": "yes", "netdevice": "eth0"}, 0, false},
	} {
		c, err := option.Parse(test.options)
		if err != nil || c.Sticky != test.sticky || c.StickyByDefault != test.byDefault {
			t.Errorf("%v: kept for %v, by default: %v, %v", test.options, c.Sticky, c.StickyByDefault, err)
		}
	}
}
