// Package host is the machine as the pod engine sees it: it joins the runtime, the volumes, the environment and the control groups
// into provider.Runtime, provider.Images and provider.Volumes. It decides nothing about pods; when something is to be run,
// restarted or removed is the engine's business.
//
// # Files
//
//	<root>/pods/<uid>/etc-hosts                          the hosts file that all containers of the pod share
//	<root>/pods/<uid>/containers/<name>/<attempt>        the termination message of one container
//	<logs>/<namespace>_<name>_<uid>/<name>/<attempt>.log  its log, written by the runtime
package host
