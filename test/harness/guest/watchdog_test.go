package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeQEMU answers the watchdog on its pair of pipes as QEMU 10.0 does. Processor 0 idles; processor 1 is halted with interrupts
// pending until something wakes it.
type fakeQEMU struct {
	wakes string // the command that wakes processor 1

	mu    sync.Mutex
	awake bool     // whether something has woken it
	asked []string // the commands other than monitor commands
}

func (q *fakeQEMU) answer(command, line string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	const registers = `CPU#%d\r\nRAX=0000000000000000\r\nRIP=ffffffff822ae73f RFL=%s [--S----] CPL=0 HLT=1\r\nDR6=00000000ffff0ff0\r\n`
	switch {
	case command != "human-monitor-command":
		if q.awake = q.awake || command == q.wakes; command != "qmp_capabilities" {
			q.asked = append(q.asked, command)
		}
		return `{}`
	case line == "info registers -a":
		// Processor 2 is offline: it is halted with interrupts disabled.
		return `"\r\n` + fmt.Sprintf(registers, 0, "00000282") + fmt.Sprintf(registers, 1, "00000292") + fmt.Sprintf(registers, 2, "00000046") + `"`
	case line == "info lapic 1" && !q.awake:
		return `"ISR\t (none)\r\nIRR\t 34 236 \r\n\r\nAPR 0x01"`
	}
	return `"ISR\t (none)\r\nIRR\t (none)\r\n\r\nAPR 0x01"`
}

// serve answers until the pipes are closed.
func (q *fakeQEMU) serve(in, out *os.File) {
	fmt.Fprintln(out, `{"QMP": {"version": {}}}`)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var ask struct {
			Execute   string
			Arguments struct {
				Line string `json:"command-line"`
			}
		}
		if json.Unmarshal(lines.Bytes(), &ask) == nil {
			fmt.Fprintf(out, `{"return": %s, "id": "watch"}`+"\n", q.answer(ask.Execute, ask.Arguments.Line))
		}
	}
}

// TestWatchdog: a processor that is halted with interrupts pending is woken, first by stop and continue, then by an NMI. Processors that
// idle or are offline are left alone.
func TestWatchdog(t *testing.T) {
	for wakes, want := range map[string]struct{ asked, log string }{
		"cont":       {"stop cont", "1 is halted with interrupts pending for 5 s: runs again"},
		"inject-nmi": {"stop cont inject-nmi", "1 is halted with interrupts pending for 8 s: runs again"},
	} {
		t.Run(wakes, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var pipes [2]*os.File
			for i, name := range []string{"watch.in", "watch.out"} {
				path := filepath.Join(dir, name)
				if err := syscall.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
				var err error
				if pipes[i], err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
					t.Fatal(err)
				}
				defer pipes[i].Close()
			}
			sleep := exec.Command("sleep", "60") // the process that the watchdog takes for QEMU
			if err := sleep.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sleep.Wait() }()
			defer func() { _ = sleep.Process.Kill() }()
			if err := os.WriteFile(filepath.Join(dir, "pid"), fmt.Append(nil, sleep.Process.Pid, "\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			q := &fakeQEMU{wakes: wakes}
			go q.serve(pipes[0], pipes[1])
			dog := exec.Command("./watchdog", dir)
			dog.Env = append(os.Environ(), "PATH="+quick(t)+":"+os.Getenv("PATH"))
			if err := dog.Start(); err != nil {
				t.Fatal(err)
			}
			var log []byte
			for end := time.Now().Add(30 * time.Second); !strings.Contains(string(log), want.log); {
				if time.Now().After(end) {
					t.Fatalf("freezes has %q, want %q", log, want.log)
				}
				<-time.After(20 * time.Millisecond)
				log, _ = os.ReadFile(filepath.Join(dir, "freezes"))
			}
			_ = sleep.Process.Kill()
			_ = sleep.Wait()
			if err := dog.Wait(); err != nil {
				t.Errorf("the watchdog ends with its QEMU: %v", err)
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			if asked := strings.Join(q.asked, " "); asked != want.asked {
				t.Errorf("asked for %q, want %q", asked, want.asked)
			}
		})
	}
}

// quick returns a folder with a sleep that takes 50 ms, whatever it is asked for.
func quick(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sleep"), []byte("#!/bin/sh\nexec /bin/sleep 0.05\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
