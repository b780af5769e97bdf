// Package guest has the recipe of the lab's guests, in shell (docs/lab.md), and a test of their watchdog.
package guest
