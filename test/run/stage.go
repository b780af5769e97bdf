package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A stage is where a layer runs: the repository, and a tally for what happens.
type stage struct {
	root    string
	only    *regexp.Regexp // of tests behind a tag, by name; nil for all
	parts   string         // of those their subtests, as "/" and a regular expression; "" for all
	bound   time.Duration  // of the tests of one package, in place of what the layer gives them; 0 for that
	release string         // of the Docker Engine, such as "20.10"; "" for the default of scripts/engine and scripts/lab
	spare   bool           // another layer runs: only what it leaves of the processors is to be taken
	tally   *tally

	fuzzTime string // for each target of the layer fuzz: "5s", or "2000x" for a number of inputs
}

// engine are the arguments that choose the Docker Engine's release.
func (s *stage) engine() []string {
	if s.release == "" {
		return nil
	}
	return []string{"--engine", s.release}
}

// among chooses tests by name, unless the user has.
func (s *stage) among(names string) {
	if s.only == nil {
		s.only = regexp.MustCompile(names)
	}
}

// command prepares a program in the repository; its stderr is passed on. When ctx ends it is asked to stop, so that it
// can clean up, and killed half a minute later.
func (s *stage) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.root
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// paths are files of the repository.
func (s *stage) paths(names ...string) []string {
	for i, n := range names {
		names[i] = filepath.Join(s.root, n)
	}
	return names
}

// step runs a part of the set-up; its output is shown.
func (s *stage) step(ctx context.Context, name string, args ...string) error {
	cmd := s.command(ctx, name, args...)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// count runs a program that prints events and counts them.
func (s *stage) count(ctx context.Context, cmd *exec.Cmd) error {
	before := s.tally.counts().failed
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := s.read(out)
	return errors.Join(readErr, s.verdict(ctx, cmd, cmd.Wait(), before))
}

// verdict is what the end of a program says beyond what was counted: a test that failed made it fail, which is no
// failure to run.
func (s *stage) verdict(ctx context.Context, cmd *exec.Cmd, err error, before int) error {
	name := strings.Join(cmd.Args[:min(len(cmd.Args), 4)], " ")
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: not finished: %w", name, ctx.Err())
	case errors.As(err, &exit) && s.tally.counts().failed > before:
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// read hands every line to the tally, however long it is.
func (s *stage) read(out io.Reader) error {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			s.tally.line(strings.TrimSuffix(line, "\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// convert runs a test binary and counts its events, which go tool test2json makes of its output.
func (s *stage) convert(ctx context.Context, pkg string, binary *exec.Cmd) error {
	before, start := s.tally.counts().failed, time.Now()
	pipe, err := binary.StdoutPipe()
	if err != nil {
		return err
	}
	if err := binary.Start(); err != nil {
		return err
	}
	// Not under ctx: it ends with its input, and what the binary says when it is stopped is of interest.
	events := s.command(context.WithoutCancel(ctx), "go", "tool", "test2json", "-t", "-p", pkg)
	events.Stdin = pipe
	countErr := s.count(ctx, events)
	err = binary.Wait()
	s.tally.end(pkg, err == nil, time.Since(start))
	return errors.Join(countErr, s.verdict(ctx, binary, err, before))
}

// crashTag compiles the points in at which a test kills the plugin.
const crashTag = "crashpoints"

// compile builds the tests of a package into a static binary that runs anywhere, and returns its path. The plugin itself is
// in some of them, with the points at which they kill it.
func (s *stage) compile(ctx context.Context, tag, pkg string) (string, error) {
	name := strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-") + "." + tag + ".test"
	binary := filepath.Join(s.root, ".cache/test", name)
	cmd := s.command(ctx, "go", "test", "-c", "-tags", tag+","+crashTag, "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("compile the tests of %s with tag %s: %w", pkg, tag, err)
	}
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("%s has no tests with tag %s", pkg, tag)
	}
	return binary, nil
}

// A taggedPackage is a package that has tests behind a build tag.
type taggedPackage struct {
	path, dir string
	tests     []string
}

// pattern matches those tests and not the others of the package, which are counted in their own layer.
func (s *stage) pattern(p taggedPackage) string {
	return "^(" + strings.Join(p.tests, "|") + ")$" + s.parts
}

// tagged finds the tests that are there with a build tag and not without it.
func (s *stage) tagged(ctx context.Context, tag string) ([]taggedPackage, error) {
	plain, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	with, err := s.list(ctx, "-tags", tag+","+crashTag)
	if err != nil {
		return nil, err
	}
	var found []taggedPackage
	for _, line := range with {
		if slices.Contains(plain, line) {
			continue
		}
		f := strings.Fields(line)
		p := taggedPackage{path: f[0], dir: f[1]}
		for _, name := range f[2:] {
			if err := p.add(filepath.Join(p.dir, name), tag, s.only); err != nil {
				return nil, err
			}
		}
		if len(p.tests) > 0 {
			found = append(found, p)
		}
	}
	return found, nil
}

// list is a line per package: its path, its directory, its test files.
func (s *stage) list(ctx context.Context, args ...string) ([]string, error) {
	const format = `{{.ImportPath}} {{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}`
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"list", "-e", "-f", format}, args...), "./...")...)
	cmd.Dir = s.root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

// long are the tests in machines that run only if a layer or the flag -only asks for them. Beside the private engine TestLoad is
// short, unless LOAD_CHILDREN or LOAD_ROUNDS says otherwise.
var long = regexp.MustCompile(`^(TestCampaign|TestBoot|TestLoad)$`)

// add adds the tests of one file if it has the build tag; only, unless it is nil, says which.
func (p *taggedPackage) add(file, tag string, only *regexp.Regexp) error {
	src, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`(?m)^//go:build .*\b` + tag + `\b`).Match(src) {
		return nil
	}
	names, err := testsIn(file, "Test")
	for _, n := range names {
		if only == nil && !long.MatchString(n) || only != nil && only.MatchString(n) {
			p.tests = append(p.tests, n)
		}
	}
	return err
}

// testsIn are the functions of a file that the testing package would run, of one kind: Test or Fuzz.
func testsIn(file, kind string) ([]string, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, kind) && fn.Name.Name != "TestMain" {
			names = append(names, fn.Name.Name)
		}
	}
	return names, nil
}
