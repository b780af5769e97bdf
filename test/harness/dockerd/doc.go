// Package dockerd pins the newest dockerd of the Moby project and the docker command of its release, in go.mod, for the engine 29 of
// scripts/lab and scripts/engine: Debian has no such release yet. test/harness/guest/moby.sh builds them.
//
// It is a module of its own, so that nothing of the engine gets into the product or its list of modules. Another version:
// go get -tool github.com/moby/moby/v2/cmd/dockerd@VERSION in this folder, and the same for github.com/docker/cli/cmd/docker.
package dockerd
