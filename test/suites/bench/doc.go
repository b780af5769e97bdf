// Package bench measures the plugin beside what others use for the same job. It is a module of its own, so that their code
// is in no build of the plugin.
package bench
