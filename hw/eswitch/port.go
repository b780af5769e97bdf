// Package eswitch reads what a NIC's driver says of the ports of the NIC's switch. In switchdev mode the driver gives the host a netdev for each
// port: the uplink, which is the wire, and a representor for each function. What is sent to a representor arrives at its function, and what
// the function sends arrives there, unless the NIC was told to forward it itself. Entry point: [Parse].
package eswitch

import (
	"regexp"
	"strconv"
)

// A Kind says what a port of a switch leads to.
type Kind string

// Kinds of ports.
const (
	Uplink      Kind = "uplink"
	PF          Kind = "pf"
	VF          Kind = "vf"
	SubFunction Kind = "sub-function"
)

// A Port is a port of a NIC's switch.
type Port struct {
	Kind Kind
	// External is set if the function belongs to another machine, such as the host that a BlueField is plugged into.
	External bool
	PF       int // number of the PF, or of the PF that the function is of; -1 if the name does not say. Of an uplink -1
	Number   int // of the VF or sub-function, from 0; of an uplink that of the wire; otherwise -1
}

// forms are the forms of phys_port_name. The kernel's own are uplinks "p0", "p0s1" and "l1p0", and functions "pf0", "pf0vf3", "pf0sf88", with
// "c1" before them if they belong to another machine (net/devlink/port.c, __devlink_port_phys_port_name_get, Linux 6.12). Drivers that name
// their ports themselves have "pf0vf3" (nfp, bnxt_en, liquidio) and "p0pf0vf3" (sfc/ef100_rep.c). mlx5 had the number alone, "3", before 5.0.
var forms = []struct {
	kind Kind
	form *regexp.Regexp // groups: what names another machine, PF, number
}{
	{Uplink, regexp.MustCompile(`^()()(?:l\d+)?p(\d+)(?:s\d+)?$`)},
	{PF, regexp.MustCompile(`^(c\d+)?(?:p\d+)?pf(\d+)()(?:s\d+)?$`)},
	{VF, regexp.MustCompile(`^(c\d+)?(?:p\d+)?(?:pf(\d+))?vf(\d+)$`)},
	{VF, regexp.MustCompile(`^()()(\d+)$`)},
	{SubFunction, regexp.MustCompile(`^(c\d+)?(?:p\d+)?pf(\d+)sf(\d+)$`)},
}

// Parse reads the phys_port_name of a netdev. ok is false if it is no port of a NIC's switch.
func Parse(physPortName string) (p Port, ok bool) {
	for _, f := range forms {
		if m := f.form.FindStringSubmatch(physPortName); m != nil {
			return Port{f.kind, m[1] != "", numberOf(m[2]), numberOf(m[3])}, true
		}
	}
	return Port{}, false
}

// IsRepresentor returns true for a port that leads to a function.
func (p Port) IsRepresentor() bool { return p.Kind != "" && p.Kind != Uplink }

// numberOf returns a number, -1 for none and for one that no function has.
func numberOf(digits string) int {
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}
