//go:build !crashpoints

package main

import (
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// crashPoints are the points at which a test kills the process, see internal/crashpoint. The program that ships has none.
type crashPoints struct{}

// newCrashPoints returns none.
func newCrashPoints() crashPoints { return crashPoints{} }

// Store returns s.
func (crashPoints) Store(s store.Store) store.Store { return s }

// Journal returns j.
func (crashPoints) Journal(j ipamdrv.Journal) ipamdrv.Journal { return j }

// Kernel returns k.
func (crashPoints) Kernel(k hw.Kernel) hw.Kernel { return k }

// RDMA returns k.
func (crashPoints) RDMA(k rdma.Kernel) rdma.Kernel { return k }

// Change makes a change.
func (crashPoints) Change(_, _ string, change func() error) error { return change() }

// OrphanAfter returns 0: the driver uses its default.
func (crashPoints) OrphanAfter() time.Duration { return 0 }

// MaintainEvery returns 0: the driver uses its default.
func (crashPoints) MaintainEvery() time.Duration { return 0 }
