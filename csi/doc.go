// Package csi is the CSI driver of ordinary nodes: a thin gRPC skin over the packages that do the work. It binds what others have mounted,
// and reads of the API server only single objects that a request names.
//
// The server advertises what it has been given: the identity service always, controller and node services only when they
// are set. Errors of the inner packages become gRPC codes in one table (status.go), and secrets are struck out of every
// request before it is logged.
package csi
