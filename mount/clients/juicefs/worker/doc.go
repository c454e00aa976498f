// Package worker serves the administrative commands (mount/admin) for any number of JuiceFS file systems, on a unix socket beside
// the CSI controller. What a command does is package volumes'.
//
// # Processes
//
// Each file system, which is to say each different set of credentials and options, has a process of its own, an engine: the
// libraries below take settings from the environment, leave goroutines behind when a metadata engine hangs and may end their
// process; all that stays within one file system. An engine starts with the first command, gets the Secret over its socket with each
// command, and ends when it has had nothing to do for a while, when a call into its metadata engine hangs, or when the worker
// ends (its standard input does). Rotated credentials are another set, and so another engine. Nothing is kept that is not in the file
// system, so that engines and workers may be killed at any moment.
//
// No capability and no particular user is needed.
package worker
