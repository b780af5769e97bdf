// Package architecture checks the rules of the repository that the compiler cannot check: which package may import what,
// who may read the environment, and that no package keeps state in variables.
package architecture
