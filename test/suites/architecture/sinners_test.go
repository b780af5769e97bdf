package architecture

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// clean is a file with nothing wrong, to which a test adds a sin.
const clean = "// Package p is one.\npackage p\n"

// TestEveryRuleBites shows that the fence would catch what it is for.
func TestEveryRuleBites(t *testing.T) {
	for _, c := range []struct {
		name string
		path string
		src  string
		want string // the sins, one per line
	}{
		{"nothing wrong", "netdrv/doc.go", clean, ""},
		{"a driver meets the other", "netdrv/doc.go", clean + `import _ "github.com/mellanox/passthrough/ipamdrv"`,
			"netdrv/doc.go:3: github.com/mellanox/passthrough/ipamdrv in room netdrv: " +
				"the drivers do not know each other, nor does anything below them; cmd wires"},
		{"addresses touch devices", "ipamdrv/doc.go", clean + `import _ "github.com/mellanox/passthrough/hw"`,
			"ipamdrv/doc.go:3: github.com/mellanox/passthrough/hw in room ipamdrv: devices are lent by netdrv alone"},
		{"a driver goes round hw", "netdrv/doc.go", clean + `import _ "github.com/vishvananda/netlink"`,
			"netdrv/doc.go:3: github.com/vishvananda/netlink in room netdrv: the kernel is hw's"},
		{"the stand-in ships", "netdrv/doc.go", clean + `import _ "github.com/mellanox/passthrough/hw/hwtest"`,
			"netdrv/doc.go:3: github.com/mellanox/passthrough/hw/hwtest in room netdrv: stand-ins are for tests"},
		{"a test may use the stand-in", "netdrv/a_test.go",
			clean + `import _ "github.com/mellanox/passthrough/hw/hwtest"`, ""},
		{"hw logs", "hw/doc.go", clean + `import _ "go.uber.org/zap"`,
			"hw/doc.go:3: go.uber.org/zap in room hw: the rooms below return errors, they do not log"},
		{"another program", "hw/doc.go", clean + `import _ "os/exec"`,
			"hw/doc.go:3: os/exec in room hw: the product runs no other program"},
		{"another program, by hand", "cmd/driver/doc.go", clean + "import \"syscall\"\n\nfunc f() { _ = syscall.Exec(\"/bin/sh\", nil, nil) }",
			"cmd/driver/doc.go:5: syscall.Exec in room cmd/driver: the product runs no other program"},
		{"the environment", "store/doc.go", clean + "import \"os\"\n\nfunc f() string { return os.Getenv(\"X\") }",
			"store/doc.go:5: os.Getenv in room store: only cmd reads the environment and ends the process"},
		{"a sleep, even in a test", "test/suites/lab/a_test.go", clean + "import \"time\"\n\nfunc f() { time.Sleep(1) }",
			"test/suites/lab/a_test.go:5: time.Sleep in room test/suites/lab: a wait has a condition, a context and a bound"},
		{"a sleep where time is not real", "netdrv/a_test.go", clean +
			"import (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nvar _ = synctest.Test\n\nfunc f() { time.Sleep(1) }", ""},
		{"a panic", "store/doc.go", clean + `func f() { panic("x") }`,
			"store/doc.go:3: panic in room store: a panic takes the engine's other calls with it; return an error"},
		{"a path of hw's", "netdrv/doc.go", clean + `const p = "/sys/class/net"`,
			"netdrv/doc.go:3: /sys/class/net in room netdrv: paths under /sys and /proc are hw's; cmd says where they begin"},
		{"the borrower's words", "hw/doc.go", clean + "// f frees the VF of an endpoint.\nfunc f() {}",
			"hw/doc.go:3: endpoint in room hw: hw knows nothing of who borrows a device"},
		{"a name that says nothing", "netdrv/string_utils.go", clean,
			"netdrv/string_utils.go:2: no doc.go with a package comment in room netdrv: " +
				"a room says what it owns and must not touch\n" +
				"netdrv/string_utils.go:2: string_utils.go in room netdrv: a name says what is in it"},
		{"init", "netdrv/doc.go", clean + "func init() {}",
			"netdrv/doc.go:3: func init in room netdrv: what happens at start is written in main"},
		{"a wide interface", "netdrv/doc.go", clean + "type i interface{ a(); b(); c(); d(); e(); f() }",
			"netdrv/doc.go:3: an interface of 6 methods in room netdrv: at most 5 can be stood in for honestly"},
		{"no package comment", "netdrv/doc.go", "package p\n",
			"netdrv/doc.go:1: no doc.go with a package comment in room netdrv: a room says what it owns and must not touch"},
		{"a table that is only read", "netdrv/doc.go", clean + "var table = map[string]int{\"a\": 1}\n\n" +
			"func f() int { table := map[string]int{}; table[\"b\"] = 2; return table[\"a\"] }", ""},
		{"a table that is written", "netdrv/doc.go", clean + "var table = map[string]int{}\n\nfunc f() { table[\"a\"]++ }",
			"netdrv/doc.go:5: package variable table is written: only tables that are read live outside of functions"},
		{"a table that is lent out", "netdrv/doc.go", clean + "var n = 1\n\nfunc f() *int { return &n }",
			"netdrv/doc.go:5: package variable n is written: only tables that are read live outside of functions"},
		{"state", "netdrv/doc.go", clean + "var cache = make(map[string]int)",
			"netdrv/doc.go:3: package variable cache is state, not a table that is only read"},
		{"a variable that waits for its value", "netdrv/doc.go", clean + "var debug bool",
			"netdrv/doc.go:3: package variable debug has no value: it can only be meant to be changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{c.path: {Data: []byte(c.src)}}
			if diff := cmp.Diff(c.want, strings.Join(sins(t, tree), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
