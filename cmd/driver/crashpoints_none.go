//go:build !crashpoints

package main

import (
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// crashPoints are the places at which a test kills the process, see crashpoints.go. The program that ships has none.
type crashPoints struct{}

// newCrashPoints are none.
func newCrashPoints() crashPoints { return crashPoints{} }

// ledger is s as it is.
func (crashPoints) ledger(s store.Store) store.Store { return s }

// journal is j as it is.
func (crashPoints) journal(j ipamdrv.Journal) ipamdrv.Journal { return j }

// kernel is m as it is.
func (crashPoints) kernel(m hw.Kernel) hw.Kernel { return m }

// orphanAfter is the default.
func (crashPoints) orphanAfter() time.Duration { return 0 }

// maintainEvery is the default.
func (crashPoints) maintainEvery() time.Duration { return 0 }
