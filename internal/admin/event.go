package admin

import "time"

// EventsCall takes [EventsRequest], answers [Events]. The answer comes when there is an event, or after a few seconds without any.
const EventsCall = "Passthrough.Events"

// EventKey is the key of the field that marks a line of the log as an event; its value is the kind.
const EventKey = "event"

// The kinds of events.
const (
	EventAttach        = "attach"         // a container has its device
	EventRelease       = "release"        // a device is free again
	EventQuarantine    = "quarantine"     // a device could not be restored, or an administrator has taken it out of use
	EventQuarantineEnd = "quarantine-end" // a quarantined device is free
	EventRepair        = "repair"         // what was changed on the host was set again
	EventSweep         = "sweep"          // what the engine has forgotten was removed: a network, an endpoint, a pool, an address
	EventWarning       = "warning"        // any other warning or error of the log
)

// Event is a decision of the plugin.
type Event struct {
	Seq    uint64            `json:"seq"` // one more than that of the event before
	Time   time.Time         `json:"time"`
	Kind   string            `json:"kind"`
	Text   string            `json:"text"`   // what happened, as in the log
	Fields map[string]string `json:"fields"` // as in the log; IDs have 12 characters
}

// EventsRequest asks for the events after one.
type EventsRequest struct {
	Run   string `json:"run,omitempty"`   // of the answer before; "" for the first request
	After uint64 `json:"after,omitempty"` // events up to this one are known
	Wait  bool   `json:"wait,omitempty"`  // wait for an event if there is none
}

// Events are the events that a process of the plugin remembers.
type Events struct {
	Run    string  `json:"run"`            // names the process: another one counts its events from 1 again
	Lost   uint64  `json:"lost,omitempty"` // events after the one that was asked for that are not remembered any more
	Events []Event `json:"events"`
}
