package netdrv

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

// watchBackoff is how long to wait before links are watched again after that has failed.
var watchBackoff = retry.Backoff{First: time.Second, Max: time.Minute}

// A watcher watches the links of the host, again if that ends: the socket of one subscription can fail, such as by a message that is not
// the kernel's. Meanwhile the passes that are due find what has changed. It is not for concurrent use.
type watcher struct {
	host    *hw.Host
	log     *zap.Logger
	changed <-chan struct{} // nil while links are not watched
	last    retry.Attempt
	told    bool // the log says that links are not watched
}

// ensure watches links if they are not watched and it is time to try. wait is how long to wait until it is to be called again; 0 for no
// limit.
func (w *watcher) ensure(ctx context.Context) (wait time.Duration) {
	if w.changed != nil {
		return 0
	}
	if wait = w.last.Wait(watchBackoff); wait > 0 {
		return wait
	}
	changed, err := w.host.Watch(ctx)
	if err != nil {
		w.failed(ctx, err)
		return w.last.Wait(watchBackoff)
	}
	w.changed = changed
	if w.told {
		w.told = false
		w.log.Info("changes of links are reported again")
	}
	return 0
}

// received notes what came from the channel.
func (w *watcher) received(ctx context.Context, open bool) {
	if open {
		w.last = retry.Attempt{}
		return
	}
	w.changed = nil
	w.failed(ctx, errors.New("the kernel's messages about links could not be read any more"))
}

// failed notes that links are not watched. The log says so once, until they are again.
func (w *watcher) failed(ctx context.Context, err error) {
	w.last = w.last.Failed()
	if !w.told && ctx.Err() == nil {
		w.told = true
		w.log.Warn("changes of links are not reported; looking every "+passEvery.String(), zap.NamedError("err", err))
	}
}
