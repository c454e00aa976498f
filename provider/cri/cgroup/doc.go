// Package cgroup keeps the control group of each pod, inside which the runtime makes those of the containers. It sets only what
// holds for the pod as a whole; containers' limits are the runtime's.
//
// The group is <parent>/pod<uid>, in every hierarchy on cgroup version 1 and once on version 2. It does not matter here which
// quality of service class a pod has: a pod without requests has the least CPU weight anyway.
//
// With the systemd driver a pod has a slice. systemd makes and removes it together with the containers' scopes, and would undo
// limits that somebody else wrote to it; so the slice is only named here and has no limits of its own.
package cgroup
