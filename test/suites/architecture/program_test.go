package architecture

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRunsNoProgram: the plugin has no code that could run another program, neither of its own nor of a library's: what the
// linker leaves in the binary is all that there is.
func TestRunsNoProgram(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "driver")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", binary, "./cmd/driver")
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
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
