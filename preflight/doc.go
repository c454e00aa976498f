// Package preflight looks at a host and tells what a node of ours would miss there: each check with what was found and, where something is
// wrong, the cure. It changes nothing on the host and starts nothing; what needs the API server or the container runtime is brought by the
// caller as a further check.
package preflight
