package rtnl

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// WriteAttr implements [hw.Kernel]. The value is written with one write(2), which sysfs takes for the whole value. An
// empty value is written as a newline: a write of zero bytes does not reach the driver.
func (k *Kernel) WriteAttr(path, value string) error {
	if !filepath.IsLocal(path) {
		return hw.FromErrno(unix.EINVAL)
	}
	if value == "" {
		value = "\n"
	}
	f, err := k.sys.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return hw.FromErrno(err)
	}
	_, err = f.WriteString(value)
	return hw.FromErrno(errors.Join(err, f.Close()))
}
