package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needCompiler sees to a C compiler, without which the race detector cannot be built in. A fresh machine has none; the
// distribution's package is installed there.
func (s *stage) needCompiler(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("go env CC: %w", err)
	}
	cc := strings.Fields(string(out))
	if len(cc) > 0 {
		if _, err := exec.LookPath(cc[0]); err == nil {
			return nil
		}
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return errors.New("the race detector needs a C compiler; install gcc and the C library's headers")
	}
	s.tally.report.say("  installing a C compiler for the race detector")
	for _, args := range [][]string{
		{"apt-get", "-qq", "update"},
		{"env", "DEBIAN_FRONTEND=noninteractive",
			"apt-get", "-qq", "install", "-y", "--no-install-recommends", "gcc", "libc6-dev"},
	} {
		cmd := s.command(ctx, args[0], args[1:]...)
		if out, err := cmd.Output(); err != nil {
			return fmt.Errorf("install a C compiler: %w\n%s", err, out)
		}
	}
	return nil
}
