package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

const usage = `usage: release pack --version VERSION --dist FOLDER [--epoch SECONDS] [--commit COMMIT] BUILT
       release push --version VERSION --dist FOLDER REPOSITORY

pack makes the files of a release in dist from BUILT, which has a folder for each architecture (see scripts/release).
push pushes the plugins in dist to REPOSITORY, such as registry.example.com/mellanox/passthrough, with the login of "docker login".`

// command runs pack or push.
func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	var r release
	var epoch int64
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	flags.StringVar(&r.version, "version", "", "")
	flags.StringVar(&r.dist, "dist", "", "")
	flags.StringVar(&r.commit, "commit", "", "")
	flags.Int64Var(&epoch, "epoch", 0, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	r.time = time.Unix(epoch, 0).UTC()
	if flags.NArg() != 1 || r.dist == "" {
		return errors.New(usage)
	}
	if err := checkVersion(r.version); err != nil {
		return err
	}
	switch args[0] {
	case "pack":
		return r.pack(flags.Arg(0))
	case "push":
		return r.push(ctx, flags.Arg(0))
	}
	return fmt.Errorf("%.64q: no such command\n%s", args[0], usage)
}

// release is one version, and where its files are.
type release struct {
	version string // of semantic versioning, with a v
	dist    string
	commit  string    // of which it is made
	time    time.Time // of the commit: that of all files
}

// number returns the version without its v, as file names and packages have it.
func (r release) number() string { return strings.TrimPrefix(r.version, "v") }

// final returns false for a version such as v0.1.0-rc1, to which the tag latest does not move.
func (r release) final() bool { return !strings.Contains(r.version, "-") }

// A version is a tag in a registry, too, which cannot have the + of semantic versioning.
var versionForm = regexp.MustCompile(`^v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z][0-9A-Za-z.-]*)?$`)

// checkVersion refuses what is not the version of a release.
func checkVersion(version string) error {
	if !versionForm.MatchString(version) || len(version) > 64 {
		return fmt.Errorf("version %.80q: must be such as v0.1.0 or v0.1.0-rc1", version)
	}
	return nil
}
