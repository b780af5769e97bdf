package netdrv

import "errors"

// Errors of this package that callers can match.
var (
	// errNoID: a request names no network or endpoint. The engine sends such requests when it repeats one whose body it
	// has used up (engines 20.10 to 29).
	errNoID = errors.New("request names no network or endpoint")
)
