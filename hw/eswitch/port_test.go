package eswitch

import "testing"

// TestParse: each form of phys_port_name that Linux and its drivers have had.
func TestParse(t *testing.T) {
	for name, want := range map[string]Port{
		"p0":                     {Uplink, false, -1, 0},
		"p1s3":                   {Uplink, false, -1, 1},
		"l2p4":                   {Uplink, false, -1, 4},
		"pf0":                    {PF, false, 0, -1},
		"c1pf0":                  {PF, true, 0, -1},
		"pf1s0":                  {PF, false, 1, -1},
		"pf0vf3":                 {VF, false, 0, 3},
		"pf1vf127":               {VF, false, 1, 127},
		"c1pf0vf3":               {VF, true, 0, 3},
		"p0pf1vf2":               {VF, false, 1, 2},
		"vf3":                    {VF, false, -1, 3},
		"3":                      {VF, false, -1, 3},
		"pf0sf88":                {SubFunction, false, 0, 88},
		"c2pf1sf5":               {SubFunction, true, 1, 5},
		"vf99999999999999999999": {VF, false, -1, -1},
	} {
		if got, ok := Parse(name); !ok || got != want || got.IsRepresentor() != (want.Kind != Uplink) {
			t.Errorf("%q is %+v, %t, want %+v", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "p", "pf", "pfvf", "pf0vf", "pf0vf3 ", "xpf0vf3", "pf0vf3x", "swp1", "-1", "p0 "} {
		if got, ok := Parse(name); ok || got.IsRepresentor() {
			t.Errorf("%q is %+v", name, got)
		}
	}
}
