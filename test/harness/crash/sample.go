package crash

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Sampled returns a place with the sample that the environment selects: CRASH_EVERY (default: every), CRASH_SEED (default: from the
// clock) and CRASH_PART=K/N, the K-th of N parts.
func (place Place) Sampled(t *testing.T, every int) Place {
	t.Helper()
	place.Every, place.Seed = every, uint64(time.Now().UnixNano())
	var err error
	if text := os.Getenv("CRASH_EVERY"); text != "" {
		if place.Every, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("CRASH_SEED"); text != "" {
		if place.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("CRASH_PART"); text != "" {
		if _, err = fmt.Sscanf(text, "%d/%d", &place.Part, &place.Parts); err != nil || place.Part < 1 || place.Part > place.Parts {
			t.Fatalf("CRASH_PART=%s: must be like 2/3", text)
		}
	}
	return place
}

// sample returns the settings that repeat the same sample.
func (place Place) sample() string {
	text := fmt.Sprintf("CRASH_EVERY=%d CRASH_SEED=%d", max(1, place.Every), place.Seed)
	if place.Parts > 0 {
		text += fmt.Sprintf(" CRASH_PART=%d/%d", place.Part, place.Parts)
	}
	return text
}

// share returns the place's part of the deaths.
func (place Place) share(deaths []death) []death {
	if place.Parts == 0 {
		return deaths
	}
	return deaths[len(deaths)*(place.Part-1)/place.Parts : len(deaths)*place.Part/place.Parts]
}
