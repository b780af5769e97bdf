//go:build crashpoints

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mellanox/passthrough/internal/crashpoint"
)

// crashPoints are the points at which a test kills the process. The environment controls them: CRASH_JOURNAL is a file that gets the
// name of each point that is passed, CRASH_AT is the name of the point at which the process dies. CRASH_ORPHAN_AFTER and
// CRASH_MAINTAIN_EVERY replace defaults of the drivers, which are minutes.
type crashPoints struct{ *crashpoint.Points }

// newCrashPoints returns the points that the environment asks for. It ends the process if the environment is wrong.
func newCrashPoints() crashPoints {
	var journal io.Writer = io.Discard
	if path := os.Getenv("CRASH_JOURNAL"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			failCrashTest(err)
		}
		journal = file
	}
	return crashPoints{crashpoint.New(os.Getenv("CRASH_AT"), journal, failCrashTest)}
}

// failCrashTest ends the process because the test itself has failed.
func failCrashTest(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// OrphanAfter returns CRASH_ORPHAN_AFTER, 0 if it is not set.
func (crashPoints) OrphanAfter() time.Duration { return durationFromEnv("CRASH_ORPHAN_AFTER") }

// MaintainEvery returns CRASH_MAINTAIN_EVERY, 0 if it is not set.
func (crashPoints) MaintainEvery() time.Duration { return durationFromEnv("CRASH_MAINTAIN_EVERY") }

// durationFromEnv reads a variable of the environment.
func durationFromEnv(name string) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		failCrashTest(fmt.Errorf("%s: %w", name, err))
	}
	return d
}
