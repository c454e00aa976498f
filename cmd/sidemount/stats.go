package main

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

// summaries measure the node and its pods. A pod's figures include its sidecars, its list of containers does not.
type summaries struct {
	engine  *provider.Engine
	runtime *cri.Runtime
	usage   *node.Usage
}

var _ node.Stats = (*summaries)(nil)

func (s *summaries) Summary(ctx context.Context) (*statsv1alpha1.Summary, error) {
	whole, err := s.usage.Measure()
	if err != nil {
		return nil, err
	}
	pods, err := s.runtime.PodStats(ctx)
	if err != nil {
		return nil, err
	}
	summary := &statsv1alpha1.Summary{Node: whole, Pods: make([]statsv1alpha1.PodStats, 0, len(pods))}
	for _, stats := range pods {
		view, err := s.engine.View(types.UID(stats.PodRef.UID))
		if err != nil || view.Absent {
			continue
		}
		summary.Pods = append(summary.Pods, ownStats(view, stats))
	}
	return summary, nil
}

func ownStats(view *provider.PodView, stats statsv1alpha1.PodStats) statsv1alpha1.PodStats {
	if view.Status != nil && view.Status.StartTime != nil {
		stats.StartTime = *view.Status.StartTime
	}
	stats.Containers = slices.DeleteFunc(slices.Clone(stats.Containers), func(c statsv1alpha1.ContainerStats) bool {
		return !isOwn(view.Pod, c.Name)
	})
	for i := range stats.Containers {
		if c, ok := view.State.Container(stats.Containers[i].Name); ok {
			stats.Containers[i].StartTime = metav1.NewTime(c.StartedAt)
		}
	}
	return stats
}

func isOwn(pod *corev1.Pod, name string) bool {
	own := func(c corev1.Container) bool { return c.Name == name }
	ephemeral := func(c corev1.EphemeralContainer) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, own) || slices.ContainsFunc(pod.Spec.InitContainers, own) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, ephemeral)
}

// kubeletConfig is what tools read at /configz.
func kubeletConfig(o *nodeOptions, object *corev1.Node) *kubeletv1beta1.KubeletConfiguration {
	pods := object.Status.Capacity[corev1.ResourcePods]
	return &kubeletv1beta1.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: "kubelet.config.k8s.io/v1beta1", Kind: "KubeletConfiguration"},
		Address:                  o.address,
		Port:                     o.port,
		MaxPods:                  int32(pods.Value()),
		ClusterDNS:               o.clusterDNS,
		ClusterDomain:            o.clusterDomain,
		PodLogsDir:               o.podLogsDir,
		ContainerRuntimeEndpoint: o.runtimeEndpoint,
		ResolverConfig:           &o.resolvConf,
		ProviderID:               object.Spec.ProviderID,
		SeccompDefault:           &o.seccompDefault,
	}
}
