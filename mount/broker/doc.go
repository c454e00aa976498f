// Package broker holds the sessions of a node: it makes their mounts, hands their files to agents over unix sockets and ends
// them. It is the only privileged code of the data path, and it neither resolves volumes nor starts containers.
package broker
