package hw

import "os"

// Sysfs gives external tests the reader of sysfs.
type Sysfs = sysfs

// NewSysfs returns a reader of the tree below root.
func NewSysfs(root *os.Root) Sysfs { return sysfs{root} }

// Text is text.
func (s sysfs) Text(name string) (string, bool, error) { return s.text(name) }

// Number is number.
func (s sysfs) Number(name string) (int, bool, error) { return s.number(name) }

// List is list.
func (s sysfs) List(name string) ([]string, error) { return s.list(name) }

// Exists is exists.
func (s sysfs) Exists(name string) bool { return s.exists(name) }
