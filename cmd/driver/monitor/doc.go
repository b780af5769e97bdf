// Package monitor has what the setting METRICS turns on: the metrics for Prometheus, and whether the plugin is alive and ready.
//
//	/metrics   the metrics; docs/metrics.md is made from the table in metrics.go
//	/healthz   200 while the process answers
//	/readyz    200 once the ledger was read and compared with the kernel; otherwise 503 with the reason
//
// A request waits for nothing that a call of the engine waits for. What the drivers know is observed by one goroutine at a time; a request
// waits for it at most [observeBound] and otherwise has what was observed last, with its age.
package monitor
