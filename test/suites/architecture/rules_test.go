package architecture

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A rule forbids something outside of some folders. Rules are for product code; tests are free of them.
type rule struct {
	forbidden, except *regexp.Regexp
	why               string
}

func forbid(what, except, why string) rule {
	return rule{regexp.MustCompile(what), regexp.MustCompile(except), why}
}

// imports are rules about import paths. External modules are named by a part of their path.
var imports = []rule{
	forbid(`/passthrough/netdrv(/|$)`, `^(cmd|netdrv)(/|$)`, "only cmd knows both drivers"),
	forbid(`/passthrough/ipamdrv(/|$)`, `^(cmd|ipamdrv)(/|$)`, "only cmd knows both drivers"),
	forbid(`/passthrough/hw(/|$)`, `^(cmd|netdrv|hw|internal)(/|$)`, "addresses do not depend on devices, nor records on either"),
	forbid(`/passthrough/(hw/hwtest|store/storetest|test)(/|$)|^testing$`, `^(hw/hwtest|store/storetest)(/|$)`, "test code is not shipped"),
	forbid(`^github\.com/(vishvananda|safchain)/`, `^hw/rtnl$`, "netlink and ethtool are behind hw.Kernel"),
	forbid(`^github\.com/insomniacslk/`, `^ipamdrv/dhcp$`, "DHCP is behind ipamdrv.DHCP"),
	forbid(`bbolt|go\.etcd\.io`, `^(cmd|store)(/|$)`, "drivers see a store.Store only"),
	forbid(`^go\.uber\.org/zap`, `^(cmd|netdrv|ipamdrv)(/|$)`, "hw, store and internal return errors and do not log"),
	forbid(`^(os/exec|plugin|log|log/slog)$`, `^$`, "the product runs no other program and has one logger"),
}

// calls are rules about package.Function.
var calls = []rule{
	forbid(`^os\.(Getenv|LookupEnv|Environ|ExpandEnv|Exit)$`, `^(cmd|examples)/`, "only cmd reads the environment and ends the process"),
	forbid(`^(os|syscall|unix)\.(Exec|ForkExec|StartProcess|Clone)`, `^$`, "the product runs no other program"),
	forbid(`^(strconv\.(Atoi|ParseInt|ParseUint)|time\.ParseDuration|fmt\.Sscan.*)$`, `^(cmd|hw|internal|ipamdrv/node|netdrv|store|test)(/|$)`,
		"numbers of users are parsed by internal/number, which refuses 0100 and +100"),
	forbid(`^time\.Sleep$`, `^$`, "a wait has a condition, a context and a bound"),
}

// dockerWord is what package hw, which serves any caller, must not mention, in comments either.
var dockerWord = regexp.MustCompile(`(?i)docker|endpoint|network_?id`)

// state is how the value of a variable begins that is made to be changed; emptyName is a name that says nothing.
var (
	state     = regexp.MustCompile(`^(&|make\(|new\(|sync\.|atomic\.)`)
	emptyName = regexp.MustCompile(`(^|[_/])(utils?|common|helpers?|managers?|misc)([_./]|$)`)
)

// TestRules checks the repository.
func TestRules(t *testing.T) {
	for _, v := range violations(t, os.DirFS("../../..")) {
		t.Error(v)
	}
}

// checker collects violations as "file:line: text".
type checker struct {
	fset      *token.FileSet
	found     []string
	forbidden map[string]bool // by name: whether a rule forbids it somewhere; the same few names are everywhere
}

func (c *checker) add(pos token.Pos, format string, args ...any) {
	p := c.fset.Position(pos)
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
}

func (c *checker) apply(rules []rule, folder, name string, pos token.Pos) {
	forbidden, known := c.forbidden[name]
	if !known {
		forbidden = slices.ContainsFunc(slices.Concat(imports, calls), func(r rule) bool { return r.forbidden.MatchString(name) })
		c.forbidden[name] = forbidden
	}
	if !forbidden {
		return
	}
	for _, r := range rules {
		if r.forbidden.MatchString(name) && !r.except.MatchString(folder) {
			c.add(pos, "%s in %s: %s", name, folder, r.why)
		}
	}
}

// violations parses every Go file of the product, whatever its build tags, and of the tests for time.Sleep.
func violations(t *testing.T, tree fs.FS) []string {
	t.Helper()
	c := &checker{fset: token.NewFileSet(), forbidden: map[string]bool{}}
	product := map[string][]*ast.File{}
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if base := e.Name(); err == nil && e.IsDir() && name != "." && (base[0] == '.' || base == "bin" || base == "testdata") {
			return fs.SkipDir
		}
		if err != nil || e.IsDir() || path.Ext(name) != ".go" {
			return err
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(c.fset, name, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := path.Dir(name)
		if emptyName.MatchString(name) {
			c.add(file.Pos(), "a name says what is in it")
		}
		if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "test/") {
			product[folder] = append(product[folder], file)
			c.product(folder, file, string(src))
		} else if !strings.Contains(string(src), `"testing/synctest"`) { // there Sleep moves a fake clock
			c.selectors(calls[2:], folder, file)
		}
		return nil
	})
	if err != nil || len(product) == 0 {
		t.Fatalf("%d folders with product code: %v", len(product), err)
	}
	for _, files := range product {
		c.variables(files)
	}
	slices.Sort(c.found)
	return slices.Compact(c.found)
}

func (c *checker) product(folder string, file *ast.File, src string) {
	for _, im := range file.Imports {
		if name, err := strconv.Unquote(im.Path.Value); err == nil {
			c.apply(imports, folder, name, im.Pos())
		}
	}
	c.selectors(calls, folder, file)
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			c.add(d.Pos(), "func init: start-up is written in main")
		}
	}
	if !strings.HasPrefix(folder+"/", "hw/") {
		return
	}
	for i, line := range strings.Split(src, "\n") {
		if word := dockerWord.FindString(line); word != "" {
			c.add(c.fset.File(file.Pos()).LineStart(i+1), "%q in hw: hw does not know who uses a device", word)
		}
	}
}

func (c *checker) selectors(rules []rule, folder string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := s.X.(*ast.Ident); ok {
				c.apply(rules, folder, pkg.Name+"."+s.Sel.Name, s.Pos())
			}
		}
		return true
	})
}

// noImports is an importer that has no packages. The variables of a package are found without its imports.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }

// variables reports package variables that are not read-only tables: declared without a value, or written by a function.
func (c *checker) variables(files []*ast.File) {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}} // imports and files for other build tags are errors here
	pkg, _ := conf.Check("p", c.fset, files, info)
	write := func(exprs ...ast.Expr) {
		for _, e := range exprs {
			if v, ok := info.Uses[root(e)].(*types.Var); ok && v.Parent() == pkg.Scope() {
				c.add(e.Pos(), "package variable %s is written", v.Name())
			}
		}
	}
	for _, file := range files {
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					v := s.(*ast.ValueSpec)
					if len(v.Values) == 0 && v.Type != nil && types.ExprString(v.Type) == "embed.FS" {
						continue // the compiler gives it its value, and nothing can change it
					}
					if len(v.Values) == 0 {
						c.add(s.Pos(), "package variable %s has no value, so it is written", v.Names[0].Name)
					} else if state.MatchString(types.ExprString(v.Values[0])) {
						c.add(s.Pos(), "package variable %s is state", v.Names[0].Name)
					}
				}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				write(n.Lhs...)
			case *ast.IncDecStmt:
				write(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					write(n.X)
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") {
					write(n.Args[0])
				}
			}
			return true
		})
	}
}

// root is the identifier that an expression such as t.x[i].y begins with, or nil.
func root(e ast.Expr) *ast.Ident {
	switch x := e.(type) {
	case *ast.Ident:
		return x
	case *ast.IndexExpr:
		return root(x.X)
	case *ast.SelectorExpr:
		return root(x.X)
	case *ast.StarExpr:
		return root(x.X)
	case *ast.ParenExpr:
		return root(x.X)
	}
	return nil
}
