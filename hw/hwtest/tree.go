package hwtest

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A tree is the sysfs directory. Paths are relative to its root and slash-separated. Files change by rename, so that
// a reader without the machine's lock sees the old text or the new one, never half of it.
type tree struct {
	t      testing.TB
	root   string
	tmp    string // a directory beside the root: a temporary file in the tree would be seen in listings
	texts  map[string]string
	stores map[string]func(string) error // what a write does; files without one are read-only
}

func newTree(t testing.TB, root, tmp string) *tree {
	s := &tree{t: t, root: root, tmp: tmp, texts: map[string]string{}, stores: map[string]func(string) error{}}
	s.check(os.MkdirAll(root, 0o755))
	s.check(os.MkdirAll(tmp, 0o755))
	return s
}

// check reports what should not happen: the tree is in a directory of the test's own.
func (s *tree) check(err error) {
	if err != nil {
		s.t.Errorf("hwtest: sysfs tree: %v", err)
	}
}

func (s *tree) abs(p string) string { return filepath.Join(s.root, filepath.FromSlash(p)) }

func (s *tree) dir(p string) { s.check(os.MkdirAll(s.abs(p), 0o755)) }

// file makes or changes an attribute; the text gets its newline here. store is called with what is written to it,
// without a newline at the end.
func (s *tree) file(p, text string, store func(string) error) {
	if store != nil {
		s.stores[p] = store
	}
	if old, ok := s.texts[p]; ok && old == text {
		return
	}
	s.texts[p] = text
	s.dir(path.Dir(p))
	mode := os.FileMode(0o444)
	if s.stores[p] != nil {
		mode = 0o644
	}
	tmp := filepath.Join(s.tmp, "attr")
	s.check(os.RemoveAll(tmp))
	s.check(os.WriteFile(tmp, []byte(text+"\n"), mode))
	s.check(os.Rename(tmp, s.abs(p)))
}

// files makes or changes read-only attributes of one directory.
func (s *tree) files(dir string, texts map[string]string) {
	for name, text := range texts {
		s.file(path.Join(dir, name), text, nil)
	}
}

// link makes a symlink at p to target. As in sysfs it is relative and ends with the target's name, also where a few
// steps up would do: readers take the name from it.
func (s *tree) link(p, target string) {
	rel, err := filepath.Rel(s.abs(path.Dir(p)), s.abs(path.Dir(target)))
	s.check(err)
	s.dir(path.Dir(p))
	s.check(os.Symlink(filepath.Join(rel, path.Base(target)), s.abs(p)))
}

// remove takes away p and all beneath it; what is not there is no error.
func (s *tree) remove(p string) {
	s.check(os.RemoveAll(s.abs(p)))
	for q := range s.texts {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(s.texts, q)
			delete(s.stores, q)
		}
	}
}

// resolve is where p leads when its symlinks are followed; the file itself has to be there.
func (s *tree) resolve(p string) (string, error) {
	if !filepath.IsLocal(p) {
		return "", syscall.EINVAL
	}
	abs, err := filepath.EvalSymlinks(s.abs(p))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(s.root, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return "", syscall.EINVAL
	}
	return filepath.ToSlash(rel), nil
}

// write is a write(2) to an attribute.
func (s *tree) write(p, value string) error {
	real, err := s.resolve(p)
	if err != nil {
		return err
	}
	store := s.stores[real]
	if store == nil {
		return syscall.EACCES
	}
	return store(strings.TrimSuffix(value, "\n"))
}
