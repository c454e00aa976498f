// Package endpoint listens on the unix sockets by which Kubernetes finds a driver, and serves gRPC on them. It knows no
// service.
package endpoint
