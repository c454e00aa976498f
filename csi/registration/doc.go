// Package registration makes a driver known to the kubelet of its node: it serves the socket in the kubelet's directory of
// plugins over which the kubelet asks for the driver's name and endpoint. It serves no volumes.
//
// The kubelet connects to every socket that it finds there when it starts. One that somebody has removed is made again, so
// that the driver is found again too.
package registration
