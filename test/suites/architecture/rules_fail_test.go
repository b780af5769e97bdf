package architecture

import (
	"strings"
	"testing"
	"testing/fstest"
)

// TestRulesFail: each rule reports what it forbids, and no rule reports what is allowed.
func TestRulesFail(t *testing.T) {
	for _, c := range []struct{ path, src, want string }{
		{"netdrv/a.go", `import _ "github.com/mellanox/passthrough/hw"`, ""},
		{"netdrv/a.go", `import _ "github.com/mellanox/passthrough/ipamdrv"`, "only cmd knows both drivers"},
		{"ipamdrv/a.go", `import _ "github.com/mellanox/passthrough/hw"`, "addresses do not depend on devices"},
		{"hw/a.go", `import _ "github.com/vishvananda/netlink"`, "netlink and ethtool are behind hw.Kernel"},
		{"ipamdrv/a.go", `import _ "github.com/insomniacslk/dhcp/dhcpv4"`, "DHCP is behind ipamdrv.DHCP"},
		{"ipamdrv/dhcp/a.go", `import _ "github.com/insomniacslk/dhcp/dhcpv4"`, ""},
		{"netdrv/a.go", `import _ "github.com/mellanox/passthrough/hw/hwtest"`, "test code is not shipped"},
		{"netdrv/a_test.go", `import _ "github.com/mellanox/passthrough/hw/hwtest"`, ""},
		{"hw/a.go", `import _ "go.uber.org/zap"`, "do not log"},
		{"hw/a.go", `import _ "os/exec"`, "runs no other program"},
		{"cmd/driver/a.go", "import \"syscall\"\nvar x = syscall.Exec", "runs no other program"},
		{"store/a.go", "import \"os\"\nvar x = os.Getenv", "only cmd reads the environment"},
		{"test/a.go", "import \"time\"\nfunc f() { time.Sleep(1) }", "a wait has a condition"},
		{"netdrv/a_test.go", "import (\"testing/synctest\"; \"time\")\nvar _ = synctest.Test\nfunc f() { time.Sleep(1) }", ""},
		{"hw/rtnl/a.go", "// f frees the VF of an endpoint.\nfunc f() {}", `"endpoint" in hw`},
		{"netdrv/a.go", "func init() {}", "start-up is written in main"},
		{"netdrv/a.go", "var v = map[int]int{}\nfunc f() int { v := map[int]int{}; v[1] = 2; return v[1] }", ""},
		{"netdrv/a.go", "var v = map[int]int{}\nfunc f() { v[1]++ }", "package variable v is written"},
		{"netdrv/a.go", "var v = map[int]int{}\nfunc f() { delete(v, 1) }", "package variable v is written"},
		{"netdrv/a.go", "var n = 1\nfunc f() *int { return &n }", "package variable n is written"},
		{"netdrv/a.go", "import \"sync\"\nvar mu = sync.Mutex{}", "package variable mu is state"},
		{"netdrv/string_utils.go", "", "a name says what is in it"},
		{"netdrv/a.go", "var debug bool", "package variable debug has no value"},
		{"hw/hwtest/a.go", "import \"embed\"\nvar files embed.FS", ""},
	} {
		found := violations(t, fstest.MapFS{
			"netdrv/product.go": {Data: []byte("package p\n")},
			c.path:              {Data: []byte("package p\n" + c.src)},
		})
		if all := strings.Join(found, "\n"); (c.want == "") != (all == "") || !strings.Contains(all, c.want) {
			t.Errorf("%s: %s\nreports %q, not %q", c.path, c.src, all, c.want)
		}
	}
}
