// Package attach measures what a container waits for: docker run on networks of the plugin and of the engine's own drivers, in turn, and
// starts of many containers at once. It runs beside an engine of its own (scripts/engine) or in a guest of the lab.
package attach
