package main

import (
	"context"
	"runtime"
)

// usageResponse is what the process takes of the machine, beside what /proc says.
type usageResponse struct {
	Goroutines int
	HeapBytes  uint64 // of what is in use
}

// usage answers it, after it has thrown away what is in use no more: so that two answers can be compared.
func usage(context.Context, *struct{}) (*usageResponse, error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &usageResponse{runtime.NumGoroutine(), m.HeapAlloc}, nil
}
