package node

import (
	"context"
	"net/http"

	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Stats measures the node and its pods.
type Stats interface {
	// Summary is a snapshot; the pods' own containers only are in it.
	Summary(ctx context.Context) (*statsv1alpha1.Summary, error)
}

func (s *Server) serveSummary(w http.ResponseWriter, r *http.Request) {
	if s.options.Stats == nil {
		unserved(w)
		return
	}
	summary, err := s.options.Stats.Summary(r.Context())
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error())
		return
	}
	if r.URL.Query().Get("only_cpu_and_memory") == "true" {
		summary = cpuAndMemory(summary)
	}
	writeJSON(w, r, summary)
}

// cpuAndMemory is the part that metrics-server asks for.
func cpuAndMemory(s *statsv1alpha1.Summary) *statsv1alpha1.Summary {
	short := &statsv1alpha1.Summary{
		Node: statsv1alpha1.NodeStats{
			NodeName:  s.Node.NodeName,
			StartTime: s.Node.StartTime,
			CPU:       s.Node.CPU,
			Memory:    s.Node.Memory,
		},
		Pods: make([]statsv1alpha1.PodStats, 0, len(s.Pods)),
	}
	for _, pod := range s.Pods {
		slim := statsv1alpha1.PodStats{PodRef: pod.PodRef, StartTime: pod.StartTime, CPU: pod.CPU, Memory: pod.Memory}
		for _, c := range pod.Containers {
			slim.Containers = append(slim.Containers, statsv1alpha1.ContainerStats{
				Name: c.Name, StartTime: c.StartTime, CPU: c.CPU, Memory: c.Memory,
			})
		}
		short.Pods = append(short.Pods, slim)
	}
	return short
}
