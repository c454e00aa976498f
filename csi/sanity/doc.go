// Package sanity runs the conformance tests of the Kubernetes project for CSI drivers (csi-sanity) against the whole driver: real
// sockets, a real worker on a real metadata engine, Mount Pods as processes with the real agent and JuiceFS client, and real FUSE
// mounts. It holds tests only.
//
// What the tests leave out, because the driver does not offer it, is listed with reasons in skipped.yaml; a test fails if that list is
// not true.
package sanity
