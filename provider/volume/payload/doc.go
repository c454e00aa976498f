// Package payload writes the files of a volume that shows API objects: a set of small files that changes as a whole. It
// neither knows where the files come from nor mounts anything.
//
// # Layout, as documented for Kubernetes volumes
//
//	..2026_11_22_12_00_00.1234567890/key   one version, never changed once it is complete
//	..data -> ..2026_11_22_12_00_00.1234567890
//	key -> ..data/key                      what a container opens
//
// A new version is complete before a rename of ..data makes it visible; names that it no longer has vanish after that.
package payload
