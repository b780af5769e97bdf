package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
)

// version is what was built; the linker sets it.
var version = "unversioned"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err) // the engine logs a plugin's stderr as an error
		os.Exit(1)
	}
}

// run is the life of the process.
func run() error {
	cfg, err := configFrom(os.Getenv)
	if err != nil {
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
	rooms := open(cfg, log)
	err = newServer(routes(rooms), limits, log).serve(stopped, socket)
	rooms.close(limits.closing)
	log.Info("stopped; what is lent stays lent")
	return err
}
