package architecture

import "regexp"

// A rule keeps something out of all rooms but some.
type rule struct {
	what  *regexp.Regexp // an import path, a call such as os.Getenv, a string literal, a name
	rooms *regexp.Regexp // the directories that may have it
	why   string
	tests bool // holds in test code too
}

// nowhere matches no room.
const nowhere = `^$`

// in makes a rule for product code.
func in(rooms, what, why string) rule {
	return rule{what: regexp.MustCompile(what), rooms: regexp.MustCompile(rooms), why: why}
}

// inAll makes a rule for product and test code.
func inAll(rooms, what, why string) rule {
	r := in(rooms, what, why)
	r.tests = true
	return r
}

// imports are matched with the paths of import declarations.
var imports = []rule{
	in(`^cmd/`, `/passthrough/(netdrv|ipamdrv)(/|$)`,
		"the drivers do not know each other, nor does anything below them; cmd wires"),
	in(`^(cmd/|netdrv$|hw(/|$))`, `/passthrough/hw$`, "devices are lent by netdrv alone"),
	in(`^(cmd/|netdrv$|ipamdrv$|store(/|$))`, `/passthrough/store$`, "only the drivers keep records"),
	in(nowhere, `/passthrough/cmd/`, "dependencies point away from cmd"),
	in(`^(hw/hwtest|store/storetest)$`, `/passthrough/(hw/hwtest|store/storetest)$|/passthrough/test/`,
		"stand-ins are for tests"),
	in(`^(netdrv|ipamdrv)$`, `go-plugins-helpers|docker/libnetwork`,
		"the engine's words are the drivers'; cmd moves bytes, hw and store know no engine"),
	in(`^(cmd/|netdrv$|ipamdrv$)`, `^encoding/json`, "hw and store have neither a wire format nor a record format"),
	in(`^(cmd/|netdrv$|ipamdrv$)`, `^go\.uber\.org/zap`, "the rooms below return errors, they do not log"),
	in(nowhere, `^(log|log/slog)$`, "there is one logger; it is handed in"),
	in(`^hw/rtnl$`, `vishvananda/|safchain/`, "the kernel is hw's"),
	in(`^hw(/|$)`, `golang\.org/x/sys|^unsafe$`, "the kernel is hw's"),
	in(`^(cmd/|hw(/|$)|store$)`, `^syscall$`, "errno, signals and file locks are of no concern to a driver"),
	in(`^(cmd/|hw(/|$)|store(/|$))`, `^os$`, "the drivers have no files: records are store's, devices are hw's"),
	in(`^store(/|$)`, `bbolt|etcd`, "what a ledger is made of is store's"),
	in(`^cmd/`, `^net/http`, "the wire is cmd's"),
	in(nowhere, `^(os/exec|plugin)$`, "the product runs no other program"),
	in(`^cmd/`, `/libcap/`, "what the process may do is decided where it starts"),
	in(`^(hw/hwtest|store/storetest)$`, `^testing$|go-cmp|rogpeppe/go-internal|pgregory\.net/rapid`,
		"test code does not ship"),
}

// calls are matched with package.Function, and with the bare names of builtins.
var calls = []rule{
	in(`^cmd/`, `^os\.(Getenv|LookupEnv|Environ|ExpandEnv|Exit)$`, "only cmd reads the environment and ends the process"),
	in(`^cmd/`, `^signal\.`, "signals are cmd's"),
	in(`^(cmd/|store$)`, `^context\.(Background|TODO)$`, "work of a driver or on a device is bounded by its caller"),
	in(`^hw/hwtest$`, `^panic$`, "a panic takes the engine's other calls with it; return an error"),
	in(nowhere, `^fmt\.Print`, "stdout is the log's"),
	in(nowhere, `^(os|syscall|unix)\.(Exec|ForkExec|StartProcess|Clone)`, "the product runs no other program"),
	inAll(nowhere, `^time\.Sleep$`, "a wait has a condition, a context and a bound"),
}

// literals are matched with the values of string literals.
var literals = []rule{
	in(`^(cmd/|hw(/|$))`, `^/(sys|proc)(/|$)`, "paths under /sys and /proc are hw's; cmd says where they begin"),
	in(`^cmd/`, `^/run/|^/var/`, "where things are on a host is configuration, which is cmd's"),
}

// words are matched with every line of a file, comments too.
var words = []rule{
	in(`^(?:[^h]|h[^w]|hw[^/])`, `(?i)docker|endpoint|network_?id`, "hw knows nothing of who borrows a device"),
}

// fileNames are matched with the base names of Go files and the names of their packages.
var fileNames = []rule{
	inAll(nowhere, `(?i)(^|_)(utils?|common|helpers?|managers?|misc)(_|\.|$)`, "a name says what is in it"),
}
