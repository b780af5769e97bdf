package hw

import (
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// Sysfs gives external tests the reader of sysfs.
type Sysfs = sysfs

// NewSysfs returns a reader of tree.
func NewSysfs(tree fs.FS) Sysfs { return sysfs{tree} }

// Text is text.
func (s sysfs) Text(name string) (string, bool, error) { return s.text(name) }

// Number is number.
func (s sysfs) Number(name string) (int, bool, error) { return s.number(name) }

// List is list.
func (s sysfs) List(name string) ([]string, error) { return s.list(name) }

// Exists is exists.
func (s sysfs) Exists(name string) bool { return s.exists(name) }

// VFAttrs lists the attributes of VFs.
func VFAttrs() []VFAttr { return slices.Clone(vfAttrs) }

// FakeVFAttr is an attribute that no kernel has: one row. Its value is where that of the rate is.
func FakeVFAttr() VFAttr {
	return newVFAttr("fake", "ether", func(s *VFState) *Rate { return &s.Rate }, vfCodec[Rate]{attr: unix.IFLA_VF_RSS_QUERY_EN, size: 12,
		decode: rateCodec().decode,
		encode: func(vf uint32, r Rate) (uint16, []byte, error) {
			return unix.IFLA_VF_RSS_QUERY_EN, words(vf, uint32(r.Min), uint32(r.Max)), nil
		}})
}

// WithVFAttrs returns a host whose VFs have these attributes.
func (h *Host) WithVFAttrs(attrs ...VFAttr) *Host {
	with := assemble(h.sys, h.kernel, attrs)
	with.boot, with.booted = h.boot, h.booted
	return with
}

// DecodeWith is Decode with these attributes.
func (m VFInfo) DecodeWith(linkType string, attrs ...VFAttr) (int, VFState, error) {
	return m.decode(attrs, linkType)
}
