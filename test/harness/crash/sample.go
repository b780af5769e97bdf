package crash

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Sampled returns an environment with the sample that the environment selects: CRASH_EVERY (default: every), CRASH_SEED (default: from the
// clock) and CRASH_PART=K/N, the K-th of N parts.
func (env Environment) Sampled(t *testing.T, every int) Environment {
	t.Helper()
	env.Every, env.Seed = every, uint64(time.Now().UnixNano())
	var err error
	if text := os.Getenv("CRASH_EVERY"); text != "" {
		if env.Every, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("CRASH_SEED"); text != "" {
		if env.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("CRASH_PART"); text != "" {
		if _, err = fmt.Sscanf(text, "%d/%d", &env.Part, &env.Parts); err != nil || env.Part < 1 || env.Part > env.Parts {
			t.Fatalf("CRASH_PART=%s: must be like 2/3", text)
		}
	}
	return env
}

// sample returns the settings that repeat the same sample.
func (env Environment) sample() string {
	text := fmt.Sprintf("CRASH_EVERY=%d CRASH_SEED=%d", max(1, env.Every), env.Seed)
	if env.Parts > 0 {
		text += fmt.Sprintf(" CRASH_PART=%d/%d", env.Part, env.Parts)
	}
	return text
}

// part returns the part that runs here of the kills.
func (env Environment) part(kills []kill) []kill {
	if env.Parts == 0 {
		return kills
	}
	return kills[len(kills)*(env.Part-1)/env.Parts : len(kills)*env.Part/env.Parts]
}
