package netdrv

import "go.uber.org/zap"

// fields say in a log line which device and which endpoint.
func (l *loan) fields() []zap.Field {
	return []zap.Field{zap.String("device", l.Label), zap.String("network", short(l.Network)),
		zap.String("endpoint", short(l.Endpoint))}
}

// stateField says what state a device has got into.
func stateField(s loanState) zap.Field { return zap.String("to", string(s)) }
