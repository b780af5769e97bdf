package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// sysfs reads attributes below a directory that is, or looks like, /sys. No path leads out of it: os.Root refuses
// links and names that would.
type sysfs struct{ root *os.Root }

// text returns an attribute without its trailing newline; ok is false when there is no such attribute.
func (s sysfs) text(name string) (text string, ok bool, err error) {
	b, err := s.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("sysfs: %w", err)
	}
	return strings.TrimSpace(string(b)), true, nil
}

// number returns a decimal attribute; ok is false when there is no such attribute.
func (s sysfs) number(name string) (n int, ok bool, err error) {
	t, ok, err := s.text(name)
	if !ok || err != nil {
		return 0, false, err
	}
	if n, err = strconv.Atoi(t); err != nil {
		return 0, false, fmt.Errorf("sysfs: %s: %w", name, err)
	}
	return n, true, nil
}

// link returns the last element of what a symbolic link points to, "" when there is no such link.
func (s sysfs) link(name string) (string, error) {
	t, err := s.target(name)
	if t == "" || err != nil {
		return "", err
	}
	return path.Base(t), nil
}

// target returns what a symbolic link points to, "" when there is no such link.
func (s sysfs) target(name string) (string, error) {
	t, err := s.root.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("sysfs: %w", err)
	}
	return t, nil
}

// list returns the names in a directory in order, none when it does not exist.
func (s sysfs) list(dir string) ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sysfs: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// exists tells whether there is an entry of that name, where it does no harm to miss one that cannot be looked at.
func (s sysfs) exists(name string) bool {
	ok, err := s.present(name)
	return ok && err == nil
}

// present tells whether there is an entry of that name. What cannot be looked at, as by a process that has no file
// descriptor left, is not taken for gone.
func (s sysfs) present(name string) (bool, error) {
	_, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sysfs: %w", err)
	}
	return true, nil
}
