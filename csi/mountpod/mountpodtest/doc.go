// Package mountpodtest runs Mount Pods as processes of this machine: real agents and real clients on real FUSE mounts, under a broker and a keeper
// as the CSI driver has them. It is for tests, which must run in a mount namespace of their own (Main).
package mountpodtest
