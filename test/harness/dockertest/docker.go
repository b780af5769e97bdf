// Package dockertest drives a Docker Engine through its command line, as users do, and waits for what they wait for. To look and to
// clear away it asks the engine itself.
package dockertest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/mellanox/passthrough/test/harness/engineapi"
)

// engine is the one that the command line speaks to.
var engine = engineapi.Engine()

// Plugin is the name that the tests give the plugin.
const Plugin = "passthrough:latest"

// Try runs a program and returns what it wrote, without white space at the ends, and its error with what it wrote to
// stderr.
func Try(name string, args ...string) (string, error) {
	if name == "docker" {
		if err := note("", "$ docker "+strings.Join(args, " ")); err != nil {
			return "", err
		}
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(out.String()), fmt.Errorf("%s", strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Run runs a program that must succeed and returns what it wrote.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	Note(t, "")
	out, err := Try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Docker runs docker, which must succeed.
func Docker(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, "docker", args...)
}

// Sh runs a shell command line, which must succeed.
func Sh(t testing.TB, line string) string {
	t.Helper()
	return Run(t, "sh", "-c", line)
}

// Refused runs docker, which must fail, with a message of one line that ends in want: engines and command lines put
// different words and lines around it, and the plugin may name a command at the end that tells more.
func Refused(t testing.TB, want string, args ...string) {
	t.Helper()
	_, err := Try("docker", args...)
	if err == nil {
		t.Errorf("docker %s: succeeded; want: %s", strings.Join(args, " "), want)
		return
	}
	ends := func(line string) bool {
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "."), "; more: passthroughctl ")
		return strings.HasSuffix(line, want)
	}
	if !slices.ContainsFunc(strings.Split(err.Error(), "\n"), ends) {
		t.Errorf("docker %s:\n  %v\nwant it to end in\n  %s", strings.Join(args, " "), err, want)
	}
}

// Network makes a network and removes it, with all that is still on it, when the test ends.
func Network(t testing.TB, name string, args ...string) {
	t.Helper()
	Docker(t, append(append([]string{"network", "create"}, args...), name)...)
	t.Cleanup(func() {
		on, err := engine.On(name)
		if err != nil {
			return
		}
		for _, id := range on {
			done(t, engine.Remove(id), "rm", "-f", id)
		}
		done(t, engine.RemoveNetwork(name), "network", "rm", name)
	})
}

// done notes what the engine was asked for in the words of the command line, and that it must have done it.
func done(t testing.TB, err error, args ...string) {
	t.Helper()
	Note(t, "$ docker "+strings.Join(args, " "))
	if err != nil {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
}

// Container starts a container that sleeps and removes it when the test ends. One that is made and does not start is removed by the ID that
// docker printed: on an engine that has other containers the name can be another one's.
func Container(t testing.TB, name string, args ...string) {
	t.Helper()
	args = append(append([]string{"run", "-d", "--name", name}, args...), "lab", "sleep", "1000000")
	Note(t, "")
	id, err := Try("docker", args...)
	if err == nil {
		id = name
	}
	if id != "" {
		t.Cleanup(func() { _ = engine.Remove(id) })
	}
	if err != nil {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
}

// Nginx makes an image nginx, for commands that are typed as they stand: the image lab, which sleeps.
func Nginx(t testing.TB) {
	t.Helper()
	Docker(t, "create", "--name", "nginx", "lab", "true")
	Docker(t, "commit", "-c", `CMD ["sleep","1000000"]`, "nginx", "nginx")
	Docker(t, "rm", "nginx")
	t.Cleanup(func() { _, _ = Try("docker", "rmi", "nginx") })
}

// Exec runs a program in a container.
func Exec(t testing.TB, container string, args ...string) string {
	t.Helper()
	out, err := engine.Exec(container, args...)
	done(t, err, append([]string{"exec", container}, args...)...)
	return out
}

// Within waits until cond returns "", and fails with what it returns last when that does not come to pass in time.
func Within(t testing.TB, bound time.Duration, cond func() string) {
	t.Helper()
	if err := Await(bound, cond); err != nil {
		t.Fatal(err)
	}
}

// Await waits until cond returns ""; the error has what it returns last when that does not come to pass in time. To look costs
// the machine something, an emulated one as much as what is waited for: between two looks it is left alone as long as one took.
func Await(bound time.Duration, cond func() string) error {
	end := time.Now().Add(bound)
	for {
		began := time.Now()
		why := cond()
		if why == "" {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("after %s: %s", bound, why)
		}
		<-time.After(min(left, max(50*time.Millisecond, time.Since(began))))
	}
}

// AsBefore checks, when the test ends and after everything that it started has been removed, that the host is as it was.
func AsBefore(t testing.TB, host func() string) {
	t.Helper()
	before := host()
	t.Cleanup(func() {
		Within(t, 15*time.Second, func() string {
			if now := host(); now != before {
				return "the host is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
	})
}

// Reaches waits until a container can ping an address.
func Reaches(t testing.TB, container, address string, bound time.Duration) {
	t.Helper()
	Within(t, bound, func() string {
		if _, err := ping(container, "-c1", "-W1", address); err != nil {
			return container + " does not reach " + address
		}
		return ""
	})
}

// ping runs ping where the container's processes are. It is looked for again and again, and to have the engine start it costs an
// emulated machine half a second of a processor.
func ping(container string, args ...string) (string, error) {
	var what struct{ State struct{ Pid int } }
	if err := engine.Read("/containers/"+container+"/json", &what); err != nil {
		return "", err
	}
	return Try("nsenter", append([]string{"--target", strconv.Itoa(what.State.Pid), "--mount", "--net", "ping"}, args...)...)
}

// CannotReach sends three pings, none of which may be answered. That they could not be sent is no proof.
func CannotReach(t testing.TB, container, address string) {
	t.Helper()
	out, err := ping(container, "-c3", "-i0.3", "-W1", address)
	if !strings.Contains(out, "3 packets transmitted, 0 packets received") {
		t.Errorf("%s reaches %s, or cannot ping: %v\n%s", container, address, err, out)
	}
}

// Inspect formats what docker inspect knows of a container.
func Inspect(t testing.TB, container, format string) string {
	t.Helper()
	what, err := engine.Inspect(container)
	done(t, err, "inspect", "-f", format, container)
	var out strings.Builder
	if err := template.Must(template.New("").Option("missingkey=error").Parse(format)).Execute(&out, what); err != nil {
		t.Fatalf("docker inspect -f %s %s: %v", format, container, err)
	}
	return out.String()
}

// Address is a container's IPv4 address on a network, MAC its hardware address.
func Address(t testing.TB, container, network string) string {
	t.Helper()
	return Inspect(t, container, fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network))
}

// MAC is a container's hardware address on a network, as docker inspect shows it.
func MAC(t testing.TB, container, network string) string {
	t.Helper()
	return Inspect(t, container, fmt.Sprintf("{{(index .NetworkSettings.Networks %q).MacAddress}}", network))
}

// Install creates and enables the plugin from a bundle, unless it exists.
func Install(bundle string) error {
	if _, err := Try("docker", "plugin", "inspect", Plugin); err == nil {
		return nil
	}
	if _, err := os.Stat(bundle); err != nil {
		return err
	}
	if _, err := Try("docker", "plugin", "create", Plugin, bundle); err != nil {
		return fmt.Errorf("create the plugin: %w", err)
	}
	if recording() != "" {
		if _, err := Try("docker", "plugin", "set", Plugin, "LOG_LEVEL=debug"); err != nil {
			return fmt.Errorf("have the plugin log what it is told: %w", err)
		}
	}
	if _, err := Try("docker", "plugin", "enable", Plugin); err != nil {
		return fmt.Errorf("enable the plugin: %w", err)
	}
	return nil
}

// Left is the end of the error about a network that another one has something of.
func Left(id string) string {
	return " (if the engine does not have that network, a crash has left it: say replace=" + id + ")"
}

// WantLine checks that one line of a text has all of these parts.
func WantLine(t testing.TB, text string, parts ...string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return
		}
	}
	t.Errorf("no line with %q in\n%s", parts, text)
}
