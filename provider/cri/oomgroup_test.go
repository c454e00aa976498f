package cri

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A container that replaces its own processes must not be killed as a whole, as others are in control groups of version 2.
func TestOutOfMemoryKillsOneProcessOrAll(t *testing.T) {
	for _, c := range []struct {
		v2, single bool
		want       string
	}{
		{v2: true, want: "1"},
		{v2: true, single: true},
		{},
		{single: true},
	} {
		in := ContainerInput{Host: Host{CgroupV2: c.v2}, Supervised: c.single}
		config, err := ContainerConfig(&corev1.Pod{}, &corev1.Container{Name: "c"}, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Linux.Resources.Unified[oomGroup]; got != c.want {
			t.Errorf("v2 %t, single %t: %q, want %q", c.v2, c.single, got, c.want)
		}
	}
}

// The processes below a supervisor have to be able to be more likely victims than it, whatever the pod's class is.
func TestSupervisorIsNotTheFirstVictim(t *testing.T) {
	for _, c := range []struct {
		supervised bool
		class      corev1.PodQOSClass
		want       int64
	}{
		{supervised: true, class: corev1.PodQOSBestEffort, want: supervisorScore},
		{supervised: true, class: corev1.PodQOSGuaranteed, want: guaranteedScore},
		{class: corev1.PodQOSBestEffort, want: bestEffortScore},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{QOSClass: c.class}}
		config, err := ContainerConfig(pod, &corev1.Container{Name: "c"}, ContainerInput{Supervised: c.supervised})
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Linux.Resources.OomScoreAdj; got != c.want {
			t.Errorf("supervised %t, %s: %d, want %d", c.supervised, c.class, got, c.want)
		}
	}
}
