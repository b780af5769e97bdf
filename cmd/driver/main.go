package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// What this build is; the linker sets it. date is that of the commit.
var (
	version = "unversioned"
	commit  = "unknown"
	date    = "unknown"
)

// buildText returns what --version prints.
func buildText() string { return fmt.Sprintf("driver %s, commit %s of %s\n", version, commit, date) }

func main() {
	startProfile()
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err) // the engine logs a plugin's stderr as an error
		os.Exit(1)
	}
}

// command serves the engine if no command follows the flags, and otherwise runs one of the operator's commands.
func command(args []string) error {
	flags, args, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return writeHelp(os.Stdout)
	case errors.Is(err, errVersion):
		_, err := io.WriteString(os.Stdout, buildText())
		return err
	}
	if err != nil {
		return err
	}
	getenv := foldersIn(os.Getenv)
	cfg, err := configFrom(flags, getenv)
	switch {
	case len(args) == 0 && (err == nil || len(flags) == 0):
		return serve(cfg, shownSettings(flags, getenv), err)
	case err != nil:
		return err
	}
	ctx, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()
	for _, c := range commands {
		rest := args[1:]
		forced := c.forced && len(rest) > 0 && rest[0] == force
		switch {
		case args[0] != c.name:
		case len(rest) == c.args && !forced || len(rest) == c.args+1 && forced:
			return c.run(ctx, cfg, rest)
		default:
			return fmt.Errorf("usage: driver [FLAG...] %s", c.usage)
		}
	}
	return fmt.Errorf("%.64q: no such command; driver --help lists the commands", args[0])
}

// commands are the operator's commands.
var commands = []struct {
	name   string
	args   int
	forced bool // it takes --force, before its arguments
	usage  string
	help   string
	run    func(ctx context.Context, cfg config, args []string) error
}{
	{"export", 1, false, "export FILE", "copy the pools and addresses of STORE to a new file; the plugin must be stopped", exportCommand},
	{"import", 1, false, "import FILE", "copy the pools and addresses of a file to STORE; the plugin must be stopped", importCommand},
	{"nodes", 0, false, "nodes", "list the nodes of an etcd", nodesCommand},
	{"forget", 1, true, "forget [--force] NODE", "remove a node that is lost, and release its addresses", forgetCommand},
	{"accept", 0, false, "accept", "go on with an etcd that was restored from a backup, or on another machine", acceptCommand},
	{"finalize", 0, false, "finalize", "after an upgrade of all nodes: refuse nodes of an older version", finalizeCommand},
	{"renew", 0, false, "renew", "make this machine, which has a copy of another node's disk, a node of its own", renewCommand},
}

// serve listens, opens everything, and answers the engine until SIGTERM or SIGINT. If settings are refused, it opens nothing, and says why to
// every call: an engine says no more of a plugin that has ended than that its socket is not there. shown are the settings for operators.
func serve(cfg config, shown map[string]string, refused error) error {
	if err := dropPrivileges(cfg.capabilitySet()); err != nil {
		return err
	}
	level := zap.NewAtomicLevelAt(cfg.logLevel)
	decisions := newEvents()
	log := newLogger(cfg.logFormat, os.Stdout, os.Stderr, level).WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewTee(c, &eventCore{events: decisions})
	}))
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	// Listen before anything that may take long: see the package comment.
	socket, err := listen(cfg.socket)
	if err != nil {
		return err
	}
	log.Info("listening", zap.String("version", version), zap.String("commit", commit), zap.String("date", date),
		zap.String("socket", cfg.socket), zap.String("state_dir", cfg.stateDir))
	if cfg.ignored != nil {
		log.Warn("setting ignored; it has its default", zap.NamedError("err", cfg.ignored))
	}

	found, err := foldersOf(cfg.stateDir).settle()
	if found {
		log.Warn("records of an earlier installation were found, and are used", zap.String("state_dir", cfg.stateDir))
	}
	if err == nil && refused == nil {
		restored(stopped, cfg.stateDir, log)
	}
	limits := limitsFor(cfg.handlerTimeout)
	drivers := openOrRefuse(cfg, errors.Join(refused, err), log)
	drivers.logLevel, drivers.events, drivers.settings = level, decisions, shown
	var again atomic.Bool
	drivers.backups.restart = func() {
		again.Store(true)
		stop()
	}
	go serveMetrics(stopped, cfg.metrics, drivers.monitor, log)
	calls := newServer(routes(drivers), limits, log)
	calls.monitor, calls.streams, calls.engine = drivers.monitor, streams(drivers), newRegistration(registrationWait)
	err = calls.serve(stopped, socket)
	drivers.close(limits.closing)
	log.Info("stopped; containers keep their devices")
	if err == nil && again.Load() {
		err = errAgain
	}
	return err
}

// errAgain ends a process that is to be started again: a managed plugin is whenever it ends, a service and a container if it ends with an error.
var errAgain = errors.New("records were restored; the plugin has to be started again, and is if an engine or systemd looks after it")

// restored takes up a ledger that was restored, and logs that.
func restored(ctx context.Context, dir string, log *zap.Logger) {
	switch taken, err := takeUpRestored(ctx, dir); {
	case err != nil:
		log.Error("restored records are not used", zap.NamedError("err", err))
	case taken:
		log.Warn("restored records are used", zap.String("state_dir", dir))
	}
}
