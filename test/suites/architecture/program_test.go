package architecture

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// build returns the program, built as by `make build` and with the tags of more, but with its symbols.
func build(t *testing.T, more string) []byte {
	t.Helper()
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`(?m)^GO_BUILD := .*go build -tags (\S+) `).FindSubmatch(makefile)
	if tags == nil {
		t.Fatal("the Makefile does not say with which tags it builds")
	}
	binary := filepath.Join(t.TempDir(), "driver")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-tags", string(tags[1])+more, "-o", binary, "./cmd/driver")
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	code, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// crashPoints is in the program with crash points.
var crashPoints = []byte("CRASH_AT")

// TestRunsNoProgram: the plugin has no code that could run another program, neither of its own nor of a library's: what the
// linker leaves in the binary is all that there is. It has no crash points either, whatever its environment says.
func TestRunsNoProgram(t *testing.T) {
	code := build(t, "")
	if bytes.Contains(code, crashPoints) {
		t.Error("the program has crash points")
	}
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	runs := regexp.MustCompile(`^(os/exec\.|plugin\.|os\.(s|S)tartProcess|syscall\.((f|F)orkExec|forkAndExecInChild|Exec$|StartProcess)|` +
		`golang\.org/x/sys/unix\.Exec$)`)
	for _, s := range symbols {
		if runs.MatchString(s.Name) {
			t.Errorf("%s is in the binary", s.Name)
		}
	}
	if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return strings.HasPrefix(s.Name, "main.main") }) {
		t.Error("main.main is not in the binary: the test looks at the wrong thing")
	}
}

// TestCrashPoints: the program with the build tag crashpoints has them, which shows that TestRunsNoProgram looks for the right thing.
func TestCrashPoints(t *testing.T) {
	if !bytes.Contains(build(t, ",crashpoints"), crashPoints) {
		t.Error("there are no crash points")
	}
}
