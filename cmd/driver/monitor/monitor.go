package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// Sources are where the metrics come from. Those of a driver are nil if it could not be made; then Refused says why.
type Sources struct {
	Version    string
	LedgerFile string
	Refused    error

	Ready     func() error                                        // nil once the ledger was compared with the kernel; must not wait
	Decisions func() map[string]int64                             // counters since the process was started; must not wait
	Devices   func(context.Context) (*metrics.Observation, error) // may wait for ledger and kernel
	Pools     func(context.Context) (*ipamdrv.Observation, error) // may wait for the ledger
}

// A Monitor counts calls and requests to stores, and serves all metrics. The methods of a nil Monitor do nothing.
type Monitor struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	requests *prometheus.HistogramVec
	failures *prometheus.CounterVec
	observer *observer
}

// New returns a monitor without sources.
func New() *Monitor {
	m := &Monitor{registry: prometheus.NewRegistry(), calls: histogramOf("call_duration_seconds"),
		requests: histogramOf("store_request_duration_seconds")}
	failures := row("store_errors_total")
	m.failures = prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + failures.name, Help: failures.help}, failures.labels)
	m.registry.MustRegister(m.calls, m.requests, m.failures, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// histogramOf returns the histogram of a row of the table.
func histogramOf(name string) *prometheus.HistogramVec {
	r := row(name)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + r.name, Help: r.help, Buckets: durations}, r.labels)
}

// Connect adds the sources. It must be called once, before Serve.
func (m *Monitor) Connect(s Sources) {
	m.observer = newObserver(s)
	m.registry.MustRegister(&collector{sources: s, observer: m.observer})
}

// Call counts a call of the engine or of an operator.
func (m *Monitor) Call(op, outcome string, took time.Duration) {
	if m != nil {
		m.calls.WithLabelValues(op, outcome).Observe(took.Seconds())
	}
}

// Store returns what counts the requests to a store.
func (m *Monitor) Store(name string) func(op string, took time.Duration, err error) {
	if m == nil {
		return nil
	}
	return func(op string, took time.Duration, err error) {
		m.requests.WithLabelValues(name, op).Observe(took.Seconds())
		failed := m.failures.WithLabelValues(name, op)
		if err != nil && !errors.Is(err, context.Canceled) {
			failed.Inc()
		}
	}
}

// Limits on clients: a scrape takes milliseconds, and one client asks every few seconds.
const (
	connections  = 16
	atOnce       = 4
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 2 * time.Minute
	headerMax    = 16 << 10
)

// Serve answers on l until ctx ends.
func (m *Monitor) Serve(ctx context.Context, l net.Listener, log *zap.Logger) error {
	hs := &http.Server{Handler: m.Handler(), ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerMax, ErrorLog: zap.NewStdLog(log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)))}
	defer context.AfterFunc(ctx, func() { _ = hs.Close() })() // a scrape may be cut short
	return hs.Serve(netutil.LimitListener(l, connections))
}

// Handler answers the requests.
func (m *Monitor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: atOnce, DisableCompression: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", m.readyz)
	return mux
}

// readyz says whether the plugin is ready. A store that nodes share is not needed for that: containers are started without it from prefetched
// addresses, and end. Nor is an IPAM server: other networks have addresses of this node.
func (m *Monitor) readyz(w http.ResponseWriter, r *http.Request) {
	s := m.observer.sources
	if err := s.ready(); err != nil {
		answer(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	text := "ready"
	if now := m.observer.observe(r.Context()); now.pools != nil && now.pools.Away != nil {
		what := "the IPAM server"
		if now.pools.Shared {
			what = "the shared store"
		}
		text += fmt.Sprintf("; %s is away: %v; %d operations are owed", what, now.pools.Away, now.pools.Owed)
	}
	answer(w, http.StatusOK, text)
}

// ready returns why the plugin is not ready, nil if it is.
func (s Sources) ready() error {
	if s.Refused != nil {
		return s.Refused
	}
	return s.Ready()
}

// answer writes a line of text.
func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may have gone
}
