// Package engine is the tests that need a real Docker Engine but no hardware. They run beside a private engine, in a
// network namespace of their own, that scripts/engine starts on the bare machine; veth ends and bridges are the devices.
package engine
