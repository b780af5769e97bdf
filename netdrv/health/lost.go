package health

import (
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// lostAfter is how long a container is without its device before that is told: the engine may be taking it out.
const lostAfter = 2 * time.Second

// LostDevices knows the containers that are without their device and have not ended, as far as the engine has said: the driver of a VF was
// bound again, which makes another netdev of it in the host, or the VF is gone, or does nothing since its PF was reset. The plugin cannot
// give the device back, because it has no access to the namespace of the container. Its methods may be called concurrently.
type LostDevices struct {
	host     *hw.Host
	log      *zap.Logger
	counters *metrics.Counters

	mu   sync.Mutex
	seen map[hw.ID]*sighting
}

// NewLostDevices returns LostDevices that knows of none.
func NewLostDevices(host *hw.Host, log *zap.Logger, counters *metrics.Counters) *LostDevices {
	return &LostDevices{host: host, log: log, counters: counters, seen: map[hw.ID]*sighting{}}
}

// Home is since when a lent device is seen in the host, and whether that is another netdev than was lent. The zero value is for a device that
// is not in the host.
type Home struct {
	Since  time.Time
	Remade bool
}

// A sighting is what is known of the device of an endpoint that is lent.
type sighting struct {
	endpoint string
	inside   bool      // it has been seen outside of the host
	leaving  bool      // the engine has begun to take it out
	ended    bool      // the netdev that the container had is no more, or in the host
	why      string    // why the container is without it, in words that follow its name; "" for not
	since    time.Time // since when
	told     bool
}

// Look notes where the device of an allocation is; home is what was seen of its netdev in the host. due is when to look again; 0 for when
// something changes.
func (l *LostDevices) Look(a *alloc.Allocation, home Home) (due time.Duration) {
	if a.State != alloc.Lent || !a.Device.IsPCI() || a.PartOf != "" || a.FromEarlierBoot() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[a.Device]
	if s == nil || s.endpoint != a.Endpoint {
		s = &sighting{endpoint: a.Endpoint}
		l.seen[a.Device] = s
	}
	why, ended := "", false
	switch {
	case home.Since.IsZero():
		why, ended = l.host.Lost(a.Device)
		s.inside = s.inside || why == ""
	case s.inside || home.Remade:
		why, ended = "is in the host again: the nic was reset, or its driver bound again", true
	}
	s.ended = s.ended || ended
	switch {
	case why != "" && s.why == "":
		s.why, s.since = why, time.Now()
	case why != "":
		s.why = why
	case !s.ended && s.why != "":
		if s.told {
			l.log.Info("container has its device again", a.Fields()...)
		}
		s.why, s.told = "", false
	}
	if s.why == "" || s.told || s.leaving {
		return 0
	}
	if wait := lostAfter - time.Since(s.since); wait > 0 {
		return wait
	}
	s.told = true
	l.counters.Count("devices_lost")
	l.log.Warn("container is without its device, and has to be started again if it runs", append(a.Fields(), zap.String("reason", a.Label+" "+s.why),
		zap.String(admin.EventKey, admin.EventWarning))...)
	return 0
}

// Leaving notes that the engine takes the device of an endpoint out of its container.
func (l *LostDevices) Leaving(endpoint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seen {
		if s.endpoint == endpoint {
			s.leaving = true
		}
	}
}

// Lent forgets what was seen of a device that is handed over now.
func (l *LostDevices) Lent(id hw.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, id)
}

// ForgetEnded forgets the devices that no container has any more.
func (l *LostDevices) ForgetEnded(held alloc.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(id hw.ID, s *sighting) bool {
		a := held[id]
		return a == nil || a.State != alloc.Lent || a.Endpoint != s.endpoint
	})
}

// Why returns why the container of an allocation is without its device, as it was told; "" if it is not.
func (l *LostDevices) Why(a *alloc.Allocation) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.seen[a.Device]; s != nil && s.told && s.endpoint == a.Endpoint {
		return s.why
	}
	return ""
}
