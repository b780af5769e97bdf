package store

import (
	"context"
	"fmt"
	"strings"
)

// ServerStatus is what one server of a shared store reports about itself.
type ServerStatus struct {
	Endpoint string // HOST:PORT
	Version  string
	Size     int64    // of the database file, in bytes
	InUse    int64    // part of Size that defragmentation would keep
	Quota    int64    // Size at which the server refuses writes, in bytes; 0 if the server does not report it (etcd 3.5 and older)
	Alarms   []string // such as "NOSPACE", and other errors that it reports about itself
	Err      error    // why there is no status; nil if it answered
}

// quotaWarning is the part of its quota, in percent, from which on a database is reported.
const quotaWarning = 80

// Problem returns what an operator must act on, because the server refuses writes or will soon, "" for nothing. kind stays the same while
// the problem does. A server that does not answer has none: the others serve.
func (s ServerStatus) Problem() (kind, text string) {
	const remedy = "compact and defragment it or raise its quota"
	switch {
	case s.Err != nil:
		return "", ""
	case len(s.Alarms) > 0:
		kind = strings.Join(s.Alarms, ", ")
		return kind, fmt.Sprintf("etcd %s has the alarm %s: it refuses writes, only releases go on; %s, then disarm the alarm", s.Endpoint,
			kind, remedy)
	case s.Quota > 0 && s.Size/quotaWarning >= s.Quota/100:
		return "near its quota", fmt.Sprintf("etcd %s: the database has %d of %d MiB, and %d of these in use; at the quota it refuses "+
			"writes: %s", s.Endpoint, s.Size>>20, s.Quota>>20, s.InUse>>20, remedy)
	}
	return "", ""
}

// Served is a Store that servers hold.
type Served interface {
	// Servers returns the status of each server, in the order of the configuration.
	Servers(ctx context.Context) []ServerStatus
}

// Servers returns the status of a store's servers, none for a store that this process holds itself.
func Servers(ctx context.Context, s Store) []ServerStatus {
	if served, ok := s.(Served); ok {
		return served.Servers(ctx)
	}
	return nil
}
