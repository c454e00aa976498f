// Package env computes what a container of a pod is started with in place of its declarations: the environment, and the
// command and arguments with their $(VAR) references expanded. It neither caches objects nor writes anything; the values of
// downward API volumes come from the same functions.
//
// The rules are those of the Kubernetes API (core/v1 EnvVar, EnvFromSource, EnvVarSource) as the kubelet 1.36 applies them:
// envFrom first, then env in the order of declaration, each later name replacing the earlier one, then the service
// variables that nobody has set.
package env
