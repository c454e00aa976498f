// Package providertest has working in-memory stand-ins for what the pod engine talks to: a container runtime that runs containers
// as state machines, images, volumes, and an API server's view of pods with graceful deletion and UID preconditions. It asserts
// nothing; tests look at what it has recorded.
package providertest
