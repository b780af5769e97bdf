// Package card records what the kernel shows of an SR-IOV NIC, and how its driver reacts to settings of a VF, as a file that can be given
// away: MACs are made up, and there are no serial numbers, names of hosts, names of devices or addresses in it. Package hwtest plays such
// files.
package card

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Format is the version of the files that this package writes. It reads no others.
const Format = 1

// A Card is a NIC as it was recorded. What the kernel did not show is absent.
type Card struct {
	Format   int       `json:"format"`
	Recorded string    `json:"recorded,omitempty"` // the day, "2026-11-29"
	Tool     string    `json:"tool,omitempty"`     // version of the program
	Kernel   string    `json:"kernel,omitempty"`   // release, "6.12.48+deb13-amd64"
	PCI      PCI       `json:"pci"`
	Driver   Driver    `json:"driver"`
	Link     Link      `json:"link"`
	Devlink  Devlink   `json:"devlink,omitzero"`
	Ethtool  Ethtool   `json:"ethtool"`
	VFs      []VF      `json:"vfs,omitempty"` // the first few
	Touch    *Reaction `json:"touch,omitempty"`
}

// PCI is the function. IDs have four hexadecimal digits.
type PCI struct {
	Vendor      string `json:"vendor"`
	Device      string `json:"device"`
	Subsystem   string `json:"subsystem,omitempty"` // "8086:a03c"
	Revision    string `json:"revision,omitempty"`
	VFDevice    string `json:"vf_device"`
	VFOffset    int    `json:"vf_offset"` // of the first VF's address
	VFStride    int    `json:"vf_stride"`
	TotalVFs    int    `json:"total_vfs"`
	NumVFs      int    `json:"num_vfs"` // how many there were
	Autoprobe   string `json:"autoprobe,omitempty"`
	VFTotalMSIX string `json:"vf_total_msix,omitempty"` // sriov_vf_total_msix
}

// Driver is what ethtool says of a netdev's driver; Bound is that of the PCI function.
type Driver struct {
	Bound    string `json:"bound"`
	Name     string `json:"name,omitempty"`
	Version  string `json:"version,omitempty"`
	Firmware string `json:"firmware,omitempty"`
}

// Link is the PF's netdev. MTUs are in bytes, the speed in Mbit/s.
type Link struct {
	Type     string `json:"type"` // "ether" or "infiniband"
	Up       bool   `json:"up"`
	Carrier  bool   `json:"carrier"`
	Speed    int    `json:"speed,omitempty"`
	MTU      int    `json:"mtu"`
	MaxMTU   int    `json:"max_mtu,omitempty"`
	PortName string `json:"port_name,omitempty"` // phys_port_name
	Port     int    `json:"dev_port,omitempty"`
	SwitchID bool   `json:"switch_id,omitempty"` // it has a phys_switch_id
	RDMA     bool   `json:"rdma,omitempty"`      // the function has an RDMA device
	VFFiles  bool   `json:"vf_files,omitempty"`  // sriov/N/policy, as the driver of mlx5's vendor has it
}

// Devlink is what devlink says of the function; the eswitch's mode is "" if it has none.
type Devlink struct {
	Eswitch  string            `json:"eswitch,omitempty"`
	Versions map[string]string `json:"versions,omitempty"` // "fw.version": "22.39.1002"
}

// Ethtool is how the PF's netdev is tuned, and what it counts.
type Ethtool struct {
	Queues       string            `json:"queues,omitempty"` // "2 of 8"
	Rings        string            `json:"rings,omitempty"`
	RSS          string            `json:"rss,omitempty"`           // sizes of its table and key
	Features     map[string]string `json:"features,omitempty"`      // on, off; with "fixed" if they cannot be changed
	PrivateFlags map[string]string `json:"private_flags,omitempty"` // on or off
	Statistics   []string          `json:"statistics,omitempty"`    // names
}

// VF is what the PF's driver reports of a VF, as rtnetlink has it: numbers, and - for all ones, which is "not known".
type VF struct {
	Index  int               `json:"index"`
	Driver string            `json:"driver,omitempty"` // "" if it was not bound
	Shows  map[string]string `json:"shows,omitempty"`  // by attribute; absent if the driver reports nothing
}

// Reaction is how the driver reacted to settings of a VF that nothing used.
type Reaction struct {
	MadeVFs bool   `json:"made_vfs"` // the VFs were made for the record, so that the VF was as the driver makes it
	Carrier bool   `json:"carrier"`  // the PF had a link
	Driver  string `json:"vf_driver,omitempty"`
	MSIX    bool   `json:"vf_interrupts,omitempty"` // its driver requested interrupts
	Steps   []Step `json:"steps"`
	// Differs is what was not as before when everything had been undone.
	Differs []string `json:"differs,omitempty"`
}

// A Step is one setting.
type Step struct {
	Set   string `json:"set"`             // one of the names of this package
	Errno string `json:"errno,omitempty"` // "EINVAL"; "" if it was accepted
	Reads string `json:"reads,omitempty"` // what was read back: "as asked", "as before", "not reported", or a value
}

// What was read back after a step.
const (
	AsAsked     = "as asked"
	AsBefore    = "as before"
	NotReported = "not reported"
	Another     = "another" // MAC
)

// enotsupp is an errno that drivers return although it is the kernel's own (include/linux/errno.h).
const enotsupp = unix.Errno(524)

// errnoName returns the name of the errno that an error is, "" for none; the text of an error without an errno.
func errnoName(err error) string {
	var no unix.Errno
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &no):
		return err.Error()
	case no == enotsupp:
		return "ENOTSUPP"
	case no == unix.EOPNOTSUPP: // which has two names
		return "EOPNOTSUPP"
	}
	if name := unix.ErrnoName(no); name != "" {
		return name
	}
	return fmt.Sprint(int(no))
}

// Error returns the error that a step had: nil, or one that matches the errno.
func (s Step) Error() error {
	if s.Errno == "" {
		return nil
	}
	for no := unix.Errno(1); no <= enotsupp; no++ {
		if errnoName(no) == s.Errno {
			return no
		}
	}
	return hw.ErrInvalid
}

// Step returns a step by its name; ok is false if there is none, and if it failed only because the PF had no link.
func (r *Reaction) Step(set string) (s Step, ok bool) {
	if r == nil {
		return s, false
	}
	for _, s := range r.Steps {
		if s.Set == set {
			return s, s.Errno == "" || r.Carrier || s.Set != RateMax && s.Set != RateMin
		}
	}
	return s, false
}

// Write writes a card as indented JSON.
func (c *Card) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(c)
}

// Parse reads a card. It refuses another format, fields that it does not know, and a card that cannot be played.
func Parse(text []byte) (*Card, error) {
	var c Card
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	switch {
	case c.Format != Format:
		return nil, fmt.Errorf("card: format %d; this program reads %d", c.Format, Format)
	case c.PCI.Vendor == "" || c.PCI.Device == "" || c.Driver.Bound == "":
		return nil, errors.New("card: it does not say which device it is, or which driver it has")
	case c.PCI.TotalVFs <= 0 || c.PCI.VFStride <= 0 || c.PCI.VFOffset <= 0:
		return nil, errors.New("card: it has no vfs")
	}
	return &c, nil
}
