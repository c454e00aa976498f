// Package grant is how a pod on somebody else's node gets its volumes: it shows a token that the cluster has made for this very pod,
// and receives what its clients serve, secrets included. It knows neither Kubernetes nor what a volume is made of; who may have
// which volume is decided by the Granter.
//
// One connection carries one request and one reply, each a length of four bytes (big endian) and JSON, inside TLS 1.3. The
// protocol's name is negotiated by ALPN, so that it can share a port with HTTPS.
//
// Nothing of it is written anywhere: token and volumes are in memory only, and errors never quote them.
package grant
