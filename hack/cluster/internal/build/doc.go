// Package build makes every program and image that a cluster is started from, once: what is up to date is left alone.
// It starts nothing.
package build
