// Command etcdserver is the etcd server, whole and unchanged, for the tests of the cluster store.
//
// It is a module of its own, so that nothing of the server gets into the product or its list of modules. Tests start it
// as a process, through package test/harness/etcdtest: a server that is a process can be killed, stopped and cut off.
package main
