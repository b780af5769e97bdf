package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRooms checks the repository.
func TestRooms(t *testing.T) {
	for _, s := range sins(t, os.DirFS("../../..")) {
		t.Error(s)
	}
}

// A file is one Go file, parsed whatever its build tags.
type file struct {
	name string // path in the repository
	room string // its directory
	test bool   // not part of the product
	src  string
	tree *ast.File
	// fakeTime is a test in testing/synctest, where time.Sleep moves a clock and waits for nothing.
	fakeTime bool
}

// sins lists what is not where it belongs, as "file:line: what: why".
func sins(t *testing.T, tree fs.FS) []string {
	t.Helper()
	fset := token.NewFileSet()
	files := load(t, fset, tree)
	if len(files) == 0 {
		t.Fatal("no Go files: the test looks in the wrong place")
	}
	c := &checker{fset: fset}
	rooms := map[string][]file{}
	for _, f := range files {
		rooms[f.room] = append(rooms[f.room], f)
		c.file(f)
	}
	for room, files := range rooms {
		c.comment(room, files)
		c.variables(files)
	}
	slices.Sort(c.found)
	return slices.Compact(c.found)
}

// load parses every Go file that git would know; hidden directories, what was built and test data are left out.
func load(t *testing.T, fset *token.FileSet, tree fs.FS) []file {
	t.Helper()
	var files []file
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		base := e.Name()
		if err == nil && e.IsDir() && name != "." && (base[0] == '.' || base == "bin" || base == "testdata") {
			return fs.SkipDir
		}
		if err != nil || e.IsDir() || path.Ext(name) != ".go" {
			return err
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room := path.Dir(name)
		test := strings.HasSuffix(name, "_test.go") || strings.HasPrefix(room, "test/")
		fakeTime := test && slices.ContainsFunc(parsed.Imports, func(im *ast.ImportSpec) bool {
			return im.Path.Value == `"testing/synctest"`
		})
		files = append(files, file{name, room, test, string(src), parsed, fakeTime})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checker collects what it finds.
type checker struct {
	fset  *token.FileSet
	found []string
}

// sin notes one.
func (c *checker) sin(pos token.Pos, format string, args ...any) {
	p := c.fset.Position(pos)
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
}

// obey checks one thing in f against a table.
func (c *checker) obey(rules []rule, f file, what string, pos token.Pos) {
	for _, r := range rules {
		if (r.tests || !f.test) && r.what.MatchString(what) && !r.rooms.MatchString(f.room) {
			c.sin(pos, "%s in room %s: %s", what, f.room, r.why)
		}
	}
}

// file checks what can be seen in one file.
func (c *checker) file(f file) {
	c.obey(fileNames, f, path.Base(f.name), f.tree.Package)
	c.obey(fileNames, f, f.tree.Name.Name, f.tree.Package)
	for _, im := range f.tree.Imports {
		if p, err := strconv.Unquote(im.Path.Value); err == nil {
			c.obey(imports, f, p, im.Pos())
		}
	}
	start := c.fset.File(f.tree.FileStart)
	for i, line := range strings.Split(strings.TrimSuffix(f.src, "\n"), "\n") {
		for _, r := range words {
			if word := r.what.FindString(line); word != "" {
				c.obey([]rule{r}, f, word, start.LineStart(i+1))
			}
		}
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		c.node(f, n)
		return true
	})
}

// interfaceMax is how many methods an interface may have.
const interfaceMax = 5

// node checks one node of a file's syntax tree.
func (c *checker) node(f file, n ast.Node) {
	switch n := n.(type) {
	case *ast.SelectorExpr:
		if pkg, ok := n.X.(*ast.Ident); ok && !(f.fakeTime && pkg.Name == "time") {
			c.obey(calls, f, pkg.Name+"."+n.Sel.Name, n.Pos())
		}
	case *ast.CallExpr:
		if fn, ok := n.Fun.(*ast.Ident); ok {
			c.obey(calls, f, fn.Name, n.Pos())
		}
	case *ast.BasicLit:
		if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
			c.obey(literals, f, s, n.Pos())
		}
	case *ast.FuncDecl:
		if n.Name.Name == "init" && n.Recv == nil {
			c.sin(n.Pos(), "func init in room %s: what happens at start is written in main", f.room)
		}
	case *ast.InterfaceType:
		if !f.test && f.name != "hw/kernel.go" && n.Methods.NumFields() > interfaceMax { // hw.Kernel is the whole kernel
			c.sin(n.Pos(), "an interface of %d methods in room %s: at most %d can be stood in for honestly",
				n.Methods.NumFields(), f.room, interfaceMax)
		}
	}
}

// comment checks that the room says in doc.go what it owns. A room of test code alone may say it in any file.
func (c *checker) comment(room string, files []file) {
	onlyTests := !slices.ContainsFunc(files, func(f file) bool { return !f.test })
	for _, f := range files {
		if doc := f.tree.Doc.Text(); path.Base(f.name) == "doc.go" || onlyTests {
			if strings.HasPrefix(doc, "Package "+f.tree.Name.Name) || strings.HasPrefix(doc, "Command "+path.Base(room)) {
				return
			}
		}
	}
	c.sin(files[0].tree.Package,
		"no doc.go with a package comment in room %s: a room says what it owns and must not touch", room)
}
