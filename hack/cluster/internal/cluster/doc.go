// Package cluster brings a Kubernetes cluster up in a machine, extends it, looks after it and takes it down. What runs is
// in the state file; each step looks at it first and does only what is missing, so every command can be repeated.
package cluster
