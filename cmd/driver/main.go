package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
)

// version is what was built; the linker sets it.
var version = "unversioned"

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err) // the engine logs a plugin's stderr as an error
		os.Exit(1)
	}
}

// command serves the engine; with arguments it does what an operator asks for, and ends.
func command(args []string) error {
	cfg, err := configFrom(os.Getenv)
	switch {
	case err != nil:
		return err
	case len(args) == 0:
		return run(cfg)
	}
	ctx, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()
	for _, v := range verbs {
		if args[0] == v.name && len(args) == 1+v.args {
			return v.do(ctx, cfg, args[1:])
		}
	}
	return errors.New("usage: driver [export FILE | import FILE | nodes | forget NODE | accept]")
}

// verbs are what the program can do beside serving.
var verbs = []struct {
	name string
	args int
	do   func(ctx context.Context, cfg config, args []string) error
}{
	{"export", 1, func(ctx context.Context, cfg config, args []string) error { return move(ctx, cfg, "export", args[0]) }},
	{"import", 1, func(ctx context.Context, cfg config, args []string) error { return move(ctx, cfg, "import", args[0]) }},
	{"nodes", 0, nodes},
	{"forget", 1, forget},
	{"accept", 0, accept},
}

// run is the life of the process that serves.
func run(cfg config) error {
	if err := giveUpPrivileges(); err != nil {
		return err
	}
	log := newLogger(os.Stdout, cfg.logLevel)
	stopped, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()

	// Before anything that may take its time: see the package comment.
	socket, err := listen(cfg.socket)
	if err != nil {
		return err
	}
	log.Info("listening", zap.String("version", version), zap.String("socket", cfg.socket),
		zap.String("state_dir", cfg.stateDir))

	limits := limitsFor(cfg.handlerTimeout)
	rooms := open(cfg, thisMachine(), log)
	err = newServer(routes(rooms), limits, log).serve(stopped, socket)
	rooms.close(limits.closing)
	log.Info("stopped; what is lent stays lent")
	return err
}
