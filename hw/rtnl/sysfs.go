package rtnl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

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

// beneath is the file system of an [os.Root], read in a fraction of the time: the kernel itself sees to it that no path leads out (openat2,
// RESOLVE_BENEATH, since Linux 5.6). An os.Root opens each folder of a path by itself, and reads each link, of which paths in sysfs have many.
type beneath struct {
	root *os.Root
	dir  int // the file descriptor of the root's folder
}

// openBeneath opens the folder of a root. Where there is no openat2, as in a sandbox that does not know it, the result is the root's own file
// system.
func openBeneath(root *os.Root) (fsys fs.FS, closeDir func()) {
	dir, err := unix.Open(root.Name(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return root.FS(), func() {}
	}
	b := beneath{root, dir}
	closeDir = func() { _ = unix.Close(dir) }
	fd, err := b.open("open", ".", unix.O_PATH)
	if err != nil {
		closeDir()
		return root.FS(), func() {}
	}
	_ = unix.Close(fd)
	return b, closeDir
}

// beneathTries is how often a path is looked up again during which something on the machine was renamed or mounted: then the kernel does not
// know whether a ".." in a link leads out (EAGAIN).
const beneathTries = 32

// open opens a file for reading. Its error is that of an operation.
func (b beneath) open(op, name string, flags uint64) (fd int, err error) {
	if !fs.ValidPath(name) {
		return 0, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for range beneathTries {
		if fd, err = unix.Openat2(b.dir, name, &how); err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return fd, nil
}

// file opens a file as the standard library has it, which reads the entries of a folder by its name.
func (b beneath) file(op, name string, flags uint64) (*os.File, error) {
	fd, err := b.open(op, name, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(b.root.Name(), name)), nil
}

// Open implements [fs.FS].
func (b beneath) Open(name string) (fs.File, error) {
	f, err := b.file("open", name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadFile implements [fs.ReadFileFS].
func (b beneath) ReadFile(name string) (text []byte, err error) {
	fd, err := b.open("open", name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for { // an attribute is as long as a page at most, and is made anew by each read from its beginning
		text = slices.Grow(text, os.Getpagesize())
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return text, nil
		}
		text = text[:len(text)+n]
	}
}

// ReadDir implements [fs.ReadDirFS].
func (b beneath) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := b.file("open", name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	return entries, err
}

// ReadLink implements [fs.ReadLinkFS].
func (b beneath) ReadLink(name string) (string, error) {
	fd, err := b.open("readlink", name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target)
	if err == unix.ENOENT { // which is what it says of a file that is no link
		err = unix.EINVAL
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(target[:n]), nil
}

// Lstat implements [fs.ReadLinkFS].
func (b beneath) Lstat(name string) (fs.FileInfo, error) {
	f, err := b.file("lstat", name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}
