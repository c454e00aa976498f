// Package certificate keeps the webhook's own authority and serving certificate: it makes them, renews them, and tells the API
// server whom to trust. It needs no other program in the cluster and serves nothing itself.
//
// Both lie in one Secret of the webhook's namespace. Several replicas need no leader: who is first to write the Secret wins, by
// its resourceVersion, and the others read what has been written. A certificate that is expired, malformed or for another name
// is replaced, so that neglect and accidents heal by themselves.
package certificate
