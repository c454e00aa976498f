// Package object keeps what pods refer to by name: Secrets and ConfigMaps, each watched alone for as long as a pod uses it,
// and ServiceAccount tokens bound to a pod. It never lists across names, since a node may read only the objects of its own
// pods (the Node authorizer), and it writes nothing to the API but TokenRequests.
//
// # Terms
//
//   - Reference: a pod's use of a Secret or ConfigMap in a volume, in the environment or as a pull secret.
//   - Watch: one list and one watch with the field selector metadata.name, shared by all references to the object. It runs
//     from the first Acquire to the last Release; an immutable object's ends as soon as the object is known.
//
// # Guarantees
//
// While a pod is acquired, Secret and ConfigMap answer from memory and are as new as the watch. That an object does not
// exist is known in the same way, without a request. After a change every pod that refers to the object is reported once.
package object
