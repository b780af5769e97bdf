package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/mellanox/passthrough/hw"
	"go.uber.org/zap"
)

// version is the version of the build; the linker sets it.
var version = "unversioned"

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err) // the engine logs a plugin's stderr as an error
		os.Exit(1)
	}
}

// command serves the engine if there are no arguments, and otherwise runs one of the operator's commands.
func command(args []string) error {
	cfg, err := configFrom(os.Getenv)
	switch {
	case err != nil:
		return err
	case len(args) == 0:
		return serve(cfg)
	}
	ctx, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()
	for _, c := range commands {
		rest := args[1:]
		forced := c.forced && len(rest) > 0 && rest[0] == force
		if args[0] == c.name && (len(rest) == c.args && !forced || len(rest) == c.args+1 && forced) {
			return c.run(ctx, cfg, rest)
		}
	}
	return errors.New("usage: driver [export FILE | import FILE | nodes | forget [--force] NODE | accept | finalize | renew]")
}

// commands are the operator's commands.
var commands = []struct {
	name   string
	args   int
	forced bool // it takes --force, before its arguments
	run    func(ctx context.Context, cfg config, args []string) error
}{
	{"export", 1, false, exportCommand},
	{"import", 1, false, importCommand},
	{"nodes", 0, false, nodesCommand},
	{"forget", 1, true, forgetCommand},
	{"accept", 0, false, acceptCommand},
	{"finalize", 0, false, finalizeCommand},
	{"renew", 0, false, renewCommand},
}

// serve listens, opens everything, and answers the engine until SIGTERM or SIGINT.
func serve(cfg config) error {
	if err := dropPrivileges(); err != nil {
		return err
	}
	log := newLogger(os.Stdout, cfg.logLevel)
	stopped, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()

	// Listen before anything that may take long: see the package comment.
	socket, err := listen(cfg.socket)
	if err != nil {
		return err
	}
	log.Info("listening", zap.String("version", version), zap.String("socket", cfg.socket),
		zap.String("state_dir", cfg.stateDir))

	limits := limitsFor(cfg.handlerTimeout)
	drivers := open(cfg, hw.Config{}, log)
	err = newServer(routes(drivers), limits, log).serve(stopped, socket)
	drivers.close(limits.closing)
	log.Info("stopped; containers keep their devices")
	return err
}
