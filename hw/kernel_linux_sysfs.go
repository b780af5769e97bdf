package hw

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteAttr implements Kernel. The value is written with one write(2), which is what sysfs takes for the whole value.
// An empty value is written as a newline: a write of nothing does not reach the driver.
func (k *netlinkKernel) WriteAttr(path, value string) error {
	if !filepath.IsLocal(path) {
		return FromErrno(unix.EINVAL)
	}
	if value == "" {
		value = "\n"
	}
	f, err := k.sys.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return FromErrno(err)
	}
	_, err = f.WriteString(value)
	return FromErrno(errors.Join(err, f.Close()))
}
