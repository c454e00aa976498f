// Command conformance runs Kubernetes' own end-to-end tests against one node of a real cluster and writes down which passed:
//
//	conformance -suite node -node vn-1       the NodeConformance tests on the virtual node
//	conformance -suite storage -node node-1  the External.Storage tests of the CSI driver on an ordinary node
//
// The tests are Kubernetes' (package suite builds them from its module); which of them are skipped, and why, is in skips.go. It fails if a
// test fails that is not among them, or if nothing was run.
package main
