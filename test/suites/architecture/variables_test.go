package architecture

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
)

// noImports makes the type checker do without other packages: the room's own variables are all we ask about.
type noImports struct{}

// Import refuses.
func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not looked at") }

// variables checks that the package variables of a room are tables that are only read: two drivers, or a test and its
// neighbour, must not meet in one. What counts is whether anything writes to it, not what it is called.
func (c *checker) variables(files []file) {
	var product []*ast.File
	for _, f := range files {
		if !f.test {
			product = append(product, f.tree)
		}
	}
	if len(product) == 0 {
		return
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	// Its errors are about what was imported and about twins for other build tags.
	pkg, _ := conf.Check(files[0].room, c.fset, product, info)
	w := &writes{checker: c, info: info, scope: pkg.Scope()}
	for _, tree := range product {
		for _, d := range tree.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				w.state(g)
			}
		}
		ast.Inspect(tree, w.node)
	}
}

// writes finds what changes package variables.
type writes struct {
	*checker
	info  *types.Info
	scope *types.Scope
}

// state refuses package variables that are there to be changed: locks, channels, things behind pointers.
func (w *writes) state(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		spec, ok := spec.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name == "_" {
			continue
		}
		if spec.Type != nil && len(spec.Values) == 0 {
			w.sin(spec.Pos(), "package variable %s has no value: it can only be meant to be changed", spec.Names[0].Name)
		}
		for _, v := range spec.Values {
			if isState(v) {
				w.sin(spec.Pos(), "package variable %s is state, not a table that is only read", spec.Names[0].Name)
			}
		}
	}
}

// isState tells a value that is made to be changed: &T{}, make, new, a sync.T{}.
func isState(v ast.Expr) bool {
	switch v := v.(type) {
	case *ast.UnaryExpr:
		return v.Op == token.AND
	case *ast.CallExpr:
		fn, ok := v.Fun.(*ast.Ident)
		return ok && (fn.Name == "make" || fn.Name == "new")
	case *ast.CompositeLit:
		sel, ok := v.Type.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && (pkg.Name == "sync" || pkg.Name == "atomic")
	}
	return false
}

// node notes the statements that write to a package variable or let others do it.
func (w *writes) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			w.written(n.Lhs...)
		}
	case *ast.IncDecStmt:
		w.written(n.X)
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			w.written(n.Key, n.Value)
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			w.written(n.X)
		}
	case *ast.CallExpr:
		if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") && len(n.Args) > 0 {
			w.written(n.Args[0])
		}
	}
	return true
}

// written notes those of the expressions that reach into a package variable.
func (w *writes) written(exprs ...ast.Expr) {
	for _, e := range exprs {
		id := rootOf(e)
		if id == nil {
			continue
		}
		if v, ok := w.info.Uses[id].(*types.Var); ok && v.Parent() == w.scope {
			w.sin(e.Pos(), "package variable %s is written: only tables that are read live outside of functions", id.Name)
		}
	}
}

// rootOf is the variable that an expression such as t.x[i].y starts from.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
