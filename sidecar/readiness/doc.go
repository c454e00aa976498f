// Package readiness lets a kubelet's startup probe ask, over a unix socket, how far a pod's sessions are. It knows no session itself and
// touches no file system but the socket's.
package readiness
