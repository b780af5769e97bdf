//go:build crashpoints

package main

import "github.com/mellanox/passthrough/internal/crashpoint"

// crashPoints are the points at which a test kills the process.
type crashPoints = *crashpoint.Points

// newCrashPoints returns the points that the environment asks for.
func newCrashPoints() crashPoints { return crashpoint.FromEnv() }
