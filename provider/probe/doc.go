// Package probe asks containers how they are: by a command, an HTTP request, a TCP connection or the gRPC health protocol, as the
// probes of a pod's specification say. It keeps no results and restarts nothing; whoever starts a Worker is told its verdicts.
//
// # Terms
//
//   - Result: the outcome of one attempt.
//   - Verdict: what a probe says after as many equal results in a row as its threshold asks for.
package probe
