//go:build !profile

package main

// startProfile does nothing: the program that ships writes no profile.
func startProfile() {}
