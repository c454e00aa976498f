// Package volume makes the volumes of a pod that live on the node itself: emptyDir, configMap, secret, downwardAPI,
// projected and hostPath, and resolves which host path each mount of a container binds. PersistentVolumeClaims and other
// volumes with a driver are not made here; those that this node serves reach it rewritten as hostPath.
//
// Below it, tree keeps to a directory that others change, mountpoint makes mounts, and payload replaces files as a whole.
//
// # Order of calls
//
// SetUp before a pod's containers, Mounts before each start of one, Unbind after the last has ended, then whatever else is
// mounted for the pod goes, then TearDown. Run refreshes in between.
//
// # Layout
//
//	<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>            a volume, as on a kubelet
//	<root>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>     the bind of a subPath
//
// # Guarantees
//
//   - A volume of files changes as a whole: a reader that opens ..data sees one version.
//   - Nothing that a container can write is trusted: paths below a volume are resolved with openat2, never by name twice.
//   - TearDown removes what SetUp made and never crosses a mount: with a mount left inside, it fails and the data stays.
//   - A file system of somebody else (hostPath) is touched only to resolve a subPath or a hostPath type, under a deadline.
package volume
