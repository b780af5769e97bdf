package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The values of the setting LOG_FORMAT.
const (
	logText = "text"
	logJSON = "json"
)

// logTime is the form of times in the log.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// logDuration returns a duration as the log has it; other values as they are.
func logDuration(v fmt.Stringer) string {
	if d, ok := v.(time.Duration); ok {
		return d.Round(time.Microsecond).String()
	}
	return v.String()
}

// newLogger writes a line for each entry: as text with warnings and errors to errors, or as one JSON object, all to out. An engine logs what
// its plugin writes to stdout at level info, and what it writes to stderr at level error (makeLoggerStreams in the engine's plugin/manager.go,
// 20.10 to 29).
func newLogger(format string, out, errors io.Writer, level zapcore.LevelEnabler) *zap.Logger {
	if format == logText {
		return zap.New(newTextCore(out, errors, level))
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.TimeEncoderOfLayout(logTime)
	enc.EncodeDuration = func(d time.Duration, a zapcore.PrimitiveArrayEncoder) { a.AppendString(logDuration(d)) }
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(out)), level))
}

// subject has the IDs of a call: requests and answers of all types carry them under these names.
type subject struct {
	NetworkID, EndpointID, PoolID string
}

// add takes over the IDs in body. A body that is not JSON adds nothing; decode refuses it.
func (s *subject) add(body []byte) {
	var found subject
	if json.Unmarshal(body, &found) != nil {
		return
	}
	for _, id := range []struct{ have, new *string }{
		{&s.NetworkID, &found.NetworkID}, {&s.EndpointID, &found.EndpointID}, {&s.PoolID, &found.PoolID},
	} {
		if *id.new != "" {
			*id.have = *id.new
		}
	}
}

// fields returns the log fields of the known IDs.
func (s *subject) fields() []zap.Field {
	var fields []zap.Field
	for _, id := range []struct{ key, value string }{
		{"network", s.NetworkID}, {"endpoint", s.EndpointID}, {"pool", s.PoolID},
	} {
		if id.value != "" {
			fields = append(fields, zap.String(id.key, short(id.value)))
		}
	}
	return fields
}

// short returns an ID as docker prints it: its first 12 characters.
func short(id string) string {
	const n = 12
	if len(id) <= n {
		return id
	}
	return id[:n]
}

// errField returns the log field of an error, and no field for nil.
func errField(err error) zap.Field {
	if err == nil {
		return zap.Skip()
	}
	return zap.String("err", errorText(err))
}

// logCall writes one line for a call.
func logCall(log *zap.Logger, op string, quiet bool, about subject, took time.Duration, a answer) {
	level := zapcore.WarnLevel
	switch {
	case a.outcome == outcomePanic || a.outcome == outcomeDeadline:
		level = zapcore.ErrorLevel
	case a.outcome == outcomeOK && quiet:
		level = zapcore.DebugLevel
	case a.outcome == outcomeOK:
		level = zapcore.InfoLevel
	}
	fields := append([]zap.Field{zap.String("op", op)}, about.fields()...)
	fields = append(fields, zap.Duration("dur", took), zap.String("outcome", string(a.outcome)))
	fields = append(fields, errField(a.err))
	if a.stack != "" {
		fields = append(fields, zap.String("stack", a.stack))
	}
	log.Log(level, "call", fields...)
}

// payloadMax is the most bytes of a request, and of an answer, that are logged. An engine stops reading a plugin's output at a line
// longer than 64 KiB (logrus before 1.9.1).
const payloadMax = 8 << 10

// logPayload logs request and answer of a call at level debug.
func logPayload(log *zap.Logger, op string, request []byte, a answer) {
	if !log.Core().Enabled(zapcore.DebugLevel) {
		return
	}
	fields := []zap.Field{zap.String("op", op), zap.ByteString("request", request[:min(len(request), payloadMax)]),
		zap.Int("status", a.status), zap.ByteString("answer", a.body[:min(len(a.body), payloadMax)]), errField(a.err)}
	log.Debug("payload", fields...)
}
