// Package number parses the numbers and durations that users write. It refuses what strconv and time accept although the user may have meant
// something else: 0100 (octal?), +100, spaces, a newline.
package number

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Parse parses a decimal number from low to high, which are not negative. It returns false for any other text: a sign, a leading zero, spaces.
func Parse(text string, low, high int) (int, bool) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high || strconv.Itoa(n) != text {
		return 0, false
	}
	return n, true
}

// duration matches numbers with units, without a sign and without leading zeros.
var duration = regexp.MustCompile(`^((0|[1-9][0-9]*)(\.[0-9]+)?(h|m|s|ms|us|µs|ns))+$`)

// ParseDuration parses a duration from low to high, such as 90s, 1.5h or 1h30m.
func ParseDuration(text string, low, high time.Duration) (time.Duration, bool) {
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high || !duration.MatchString(text) {
		return 0, false
	}
	return d, true
}

// ParseList parses a list of numbers and ranges from 0 to high, such as "0-3,7"; spaces may follow a comma. Each number is in the result once,
// in the order of the text.
func ParseList(text string, high int) ([]int, bool) {
	var all []int
	seen := make([]bool, high+1)
	for i, part := range strings.Split(text, ",") {
		if i > 0 {
			part = strings.TrimLeft(part, " ")
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, ok := Parse(from, 0, high)
		if !ok {
			return nil, false
		}
		last, ok := Parse(to, first, high)
		if !ok {
			return nil, false
		}
		for n := first; n <= last && len(all) <= high; n++ {
			if !seen[n] {
				seen[n] = true
				all = append(all, n)
			}
		}
	}
	return all, true
}

// CanonicalList is [Canonical] for a list: it returns one that [ParseList] accepts.
func CanonicalList(text string) string {
	parts := strings.Split(strings.ReplaceAll(text, " ", ""), ",")
	for i, part := range parts {
		from, to, isRange := strings.Cut(part, "-")
		if parts[i] = Canonical(from); isRange {
			parts[i] += "-" + Canonical(to)
		}
	}
	return strings.Join(parts, ",")
}

// Canonical returns the number or the duration in a form that [Parse] or [ParseDuration] accepts, and any other text as it is. It is for records
// with the text of options, which older versions parsed with strconv and time: what they accepted must stay readable.
func Canonical(text string) string {
	trimmed := strings.TrimSpace(text)
	if n, err := strconv.Atoi(trimmed); err == nil {
		return strconv.Itoa(n)
	}
	if d, err := time.ParseDuration(trimmed); err == nil {
		return d.String()
	}
	return text
}
