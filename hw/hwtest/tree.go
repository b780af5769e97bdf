package hwtest

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// A tree is sysfs, in memory. Paths are relative to its root, and slash-separated. As an [fs.FS] it follows links as the one
// of an [os.Root] does, not beyond its root.
type tree struct {
	t    testing.TB
	mu   sync.RWMutex // guards all nodes; stores are called without it
	root *node
}

// A node is a directory, a link or an attribute.
type node struct {
	name    string
	parent  *node            // nil for the root and for what has been removed
	entries map[string]*node // of a directory
	target  string           // of a link
	text    string           // of an attribute
	store   func(string) error
}

func newTree(t testing.TB) *tree {
	return &tree{t: t, root: &node{name: ".", entries: map[string]*node{}}}
}

// find returns the node at name. Links before its last element are followed, and with follow a link at the end too.
func (s *tree) find(op, name string, follow bool) (*node, error) {
	if !fs.ValidPath(name) || strings.Contains(name, "\x00") {
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.EINVAL}
	}
	links := 0
	n, err := walk(s.root, name, follow, &links)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// walk goes from n along the elements of name. It counts the links, which may lead in a circle.
func walk(n *node, name string, follow bool, links *int) (*node, error) {
	for more := name != ""; more; {
		var element string
		if element, name, more = strings.Cut(name, "/"); element == "." {
			continue
		}
		next := n.parent
		if element != ".." {
			if n.entries == nil {
				return nil, syscall.ENOTDIR
			}
			next = n.entries[element]
		}
		switch {
		case next == nil && element == "..":
			return nil, syscall.EXDEV // beyond the root
		case next == nil && len(element) > 255:
			return nil, syscall.ENAMETOOLONG
		case next == nil:
			return nil, syscall.ENOENT
		case next.target != "" && (more || follow):
			if *links++; *links > 40 {
				return nil, syscall.ELOOP
			}
			var err error
			if next, err = walk(n, next.target, true, links); err != nil {
				return nil, err
			}
		}
		n = next
	}
	return n, nil
}

// dirLocked returns the directory p, and makes it and those above it if they do not exist.
func (s *tree) dirLocked(p string) *node {
	n := s.root
	for element := range strings.SplitSeq(p, "/") {
		next := n.entries[element]
		if next == nil {
			next = &node{name: element, parent: n, entries: map[string]*node{}}
			n.entries[element] = next
		}
		if next.entries == nil {
			s.t.Errorf("hwtest: sysfs tree: %s in %s is no directory", element, p)
			return next.parent
		}
		n = next
	}
	return n
}

func (s *tree) dir(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirLocked(p)
}

// file makes or changes an attribute; the text gets its newline here. store is called with what is written to it,
// without a newline at the end; an attribute without one is read-only.
func (s *tree) file(p, text string, store func(string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.dirLocked(path.Dir(p)).attr(path.Base(p), text)
	if store != nil {
		n.store = store
	}
}

// files makes or changes read-only attributes of one directory.
func (s *tree) files(dir string, texts map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirLocked(dir)
	for name, text := range texts {
		d.attr(name, text)
	}
}

// attr makes or changes an attribute of a directory.
func (n *node) attr(name, text string) *node {
	a := n.entries[name]
	if a == nil {
		a = &node{name: name, parent: n}
		n.entries[name] = a
	}
	a.text = text + "\n"
	return a
}

// link makes a symlink at p to target. As in sysfs it is relative and ends with the target's name, also where a few
// steps up would do: readers take the name from it.
func (s *tree) link(p, target string) {
	from, to := strings.Split(path.Dir(p), "/"), strings.Split(target, "/")
	same := 0
	for same < len(from) && same < len(to)-1 && from[same] == to[same] {
		same++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, name := s.dirLocked(path.Dir(p)), path.Base(p)
	if dir.entries[name] != nil {
		s.t.Errorf("hwtest: sysfs tree: a link at %s, which exists", p)
	}
	dir.entries[name] = &node{name: name, parent: dir, target: strings.Repeat("../", len(from)-same) + path.Join(to[same:]...)}
}

// remove takes away p and all beneath it; what is not there is no error.
func (s *tree) remove(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find("remove", p, false)
	if err != nil {
		return
	}
	delete(n.parent.entries, n.name)
	n.parent = nil
}

// write is a write(2) to an attribute.
func (s *tree) write(p, value string) error {
	store, err := read(s, "write", p, true, func(n *node) (func(string) error, error) {
		if n.store == nil {
			return nil, syscall.EACCES
		}
		return n.store, nil
	})
	if err != nil {
		return err
	}
	return store(strings.TrimSuffix(value, "\n"))
}

// read returns a node and what do reads of it, with the lock held.
func read[T any](s *tree, op, name string, follow bool, do func(*node) (T, error)) (T, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, err := s.find(op, name, follow)
	if err != nil {
		return *new(T), err
	}
	v, err := do(n)
	if err != nil {
		err = &fs.PathError{Op: op, Path: name, Err: err}
	}
	return v, err
}

// OverwriteAttr makes the attribute at name read as text, without the kernel's knowledge; restore ends that.
func (k *Kernel) OverwriteAttr(name, text string) (restore func()) {
	set := func(text string) (was string) {
		k.tree.mu.Lock()
		defer k.tree.mu.Unlock()
		n, err := k.tree.find("overwrite", name, true)
		if err != nil {
			k.t.Fatal(err)
		}
		was, n.text = n.text, text
		return was
	}
	was := set(text)
	return func() { set(was) }
}

// BreakDir makes the directory at name one that cannot be read: a link to itself.
func (k *Kernel) BreakDir(name string) {
	k.tree.remove(name)
	k.tree.link(name, name)
}

// ReadFile implements [fs.ReadFileFS].
func (s *tree) ReadFile(name string) ([]byte, error) {
	return read(s, "read", name, true, func(n *node) ([]byte, error) {
		if n.entries != nil {
			return nil, syscall.EISDIR
		}
		return []byte(n.text), nil
	})
}

// ReadDir implements [fs.ReadDirFS].
func (s *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	return read(s, "readdir", name, true, func(n *node) ([]fs.DirEntry, error) {
		if n.entries == nil {
			return nil, syscall.ENOTDIR
		}
		entries := make([]fs.DirEntry, 0, len(n.entries))
		for _, e := range n.entries {
			entries = append(entries, fs.FileInfoToDirEntry(e.info()))
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		return entries, nil
	})
}

// ReadLink implements [fs.ReadLinkFS].
func (s *tree) ReadLink(name string) (string, error) {
	return read(s, "readlink", name, false, func(n *node) (string, error) {
		if n.target == "" {
			return "", syscall.EINVAL
		}
		return n.target, nil
	})
}

// Lstat implements [fs.ReadLinkFS].
func (s *tree) Lstat(name string) (fs.FileInfo, error) {
	return read(s, "lstat", name, false, func(n *node) (fs.FileInfo, error) { return n.info(), nil })
}

// Open implements [fs.FS].
func (s *tree) Open(name string) (fs.File, error) {
	files, err := read(s, "open", name, true, func(n *node) (fstest.MapFS, error) {
		files := fstest.MapFS{name: {Data: []byte(n.text), Mode: n.info().mode}}
		for _, e := range n.entries {
			files[path.Join(name, e.name)] = &fstest.MapFile{Data: []byte(e.text), Mode: e.info().mode}
		}
		return files, nil
	})
	if err != nil {
		return nil, err
	}
	return files.Open(name)
}

// info is what a listing and Lstat show of a node.
type info struct {
	*node
	mode fs.FileMode
}

func (n *node) info() info {
	switch {
	case n.entries != nil:
		return info{n, fs.ModeDir | 0o755}
	case n.target != "":
		return info{n, fs.ModeSymlink | 0o777}
	case n.store != nil:
		return info{n, 0o644}
	}
	return info{n, 0o444}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.text)) }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
