//go:build profile

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// profileFile has the stacks of the calls, one a line, root first, and how often each was seen: the folded stacks of flame graphs.
const profileFile = "/calls.folded"

// sampleEvery is the time between two looks at the stacks. Each stops the program for a moment.
const sampleEvery = 20 * time.Millisecond

// startProfile has the program write where its calls spend their time, as the clock on the wall sees it: waits for the kernel, the disk and locks count, which a
// profile of the processor does not show. SIGUSR2 starts the profile, and ends it. See make bench-profile; the program that ships has none of this.
func startProfile() {
	toggle := make(chan os.Signal, 1)
	signal.Notify(toggle, syscall.SIGUSR2)
	go func() {
		for {
			<-toggle
			if err := writeProfile(sampleUntil(toggle)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
}

// sampleUntil counts the stacks of all goroutines until the signal comes again.
func sampleUntil(toggle <-chan os.Signal) map[string]int {
	seen := map[string]int{}
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	text := make([]byte, 16<<20)
	for {
		select {
		case <-toggle:
			return seen
		case <-tick.C:
		}
		n := runtime.Stack(text, true) // whole stacks; runtime.GoroutineProfile has 32 functions of one
		for goroutine := range strings.SplitSeq(string(text[:n]), "\n\n") {
			seen[folded(goroutine)]++
		}
	}
}

// folded returns the names of a goroutine's functions, root first:
//
//	goroutine 7 [IO wait]:
//	net.(*netFD).accept(0xc0001a4000)
//		/usr/local/go/src/net/fd_unix.go:172 +0x29
//	created by main.serve in goroutine 1
func folded(text string) string {
	var names []string
	for line := range strings.Lines(text) {
		at := strings.LastIndexByte(line, '(')
		if at > 0 && !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "goroutine ") && !strings.HasPrefix(line, "created by ") {
			names = append(names, strings.TrimPrefix(line[:at], "github.com/"))
		}
	}
	slices.Reverse(names)
	return strings.Join(names, ";")
}

// writeProfile writes the file, which is whole or not there.
func writeProfile(seen map[string]int) error {
	var b strings.Builder
	for stack, n := range seen {
		fmt.Fprintf(&b, "%s %d\n", stack, n)
	}
	part := filepath.Join(filepath.Dir(profileFile), ".calls.folded")
	if err := os.WriteFile(part, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(part, profileFile)
}
