package cri

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The interface spells "SIGRTMIN+1" as SIGRTMINPLUS1; otherwise its names are those of the API.
var (
	signalToCRI = strings.NewReplacer("+", "PLUS", "-", "MINUS")
	signalToAPI = strings.NewReplacer("PLUS", "+", "MINUS", "-")
)

// stopSignal returns the signal of the container's lifecycle; a container that names none leaves it to its image.
func stopSignal(c *corev1.Container) (runtimeapi.Signal, error) {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_RUNTIME_DEFAULT, nil
	}
	name := string(*c.Lifecycle.StopSignal)
	v, ok := runtimeapi.Signal_value[signalToCRI.Replace(name)]
	if !ok || v == int32(runtimeapi.Signal_RUNTIME_DEFAULT) {
		return 0, misfit("stop signal %q is unknown", name)
	}
	return runtimeapi.Signal(v), nil
}

func fromSignal(s runtimeapi.Signal) corev1.Signal {
	name, ok := runtimeapi.Signal_name[int32(s)]
	if !ok || s == runtimeapi.Signal_RUNTIME_DEFAULT {
		return ""
	}
	return corev1.Signal(signalToAPI.Replace(name))
}
