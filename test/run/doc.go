// Command run runs the test layers in order and counts what happened in them.
//
//	go run ./test/run [-layers unit,fuzz,kernel,cluster,engine,lab,crash,campaign,load] [-engine 20.10|26.1|28.5] [-fuzztime 3s|2000x]
//	    [-only REGEXP] [-v]
//
// unit is every test without a build tag, with the race detector; fuzz is every fuzz target, each for a while; kernel those
// behind the tag kernel, on real links in private namespaces; cluster those behind the tag cluster, on etcd servers that they
// build and start; engine is test/suites/engine against a private Docker Engine; lab is test/suites/lab in a virtual machine with an SR-IOV
// NIC, test/suites/virtio in one with another make of it, test/suites/campaign beside one whose plug it pulls, and test/suites/swarm beside
// two that are a swarm. Some run only if they are asked for, and are longer than what the others have of them: crash kills the
// plugin at each of its crash points, campaign draws hundreds of operations by lot, load starts hundreds of containers at once,
// on the private engine and in the lab. -only chooses tests behind a tag by their names, and after a slash their subtests by theirs.
// Each layer prepares what it needs.
// Progress is a line per package, or per test where tests are long; a test that fails is shown in full at once. The last line is
//
//	N passed, N failed, N skipped
//
// With several releases, as in -engine 20.10,28.5, the layers engine and lab run on one after the other, and one table has them all.
// A test with subtests is counted by its subtests. A package that fails outside of its tests is one failure, and so is
// a layer that could not run: nothing is left out silently. The exit status is 1 when anything failed.
package main
