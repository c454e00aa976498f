package session

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// Conditions of a pod with volumes of ours.
const (
	// VolumesReady is True while every volume of the pod is served, False while the application has to wait for one or has lost one.
	VolumesReady corev1.PodConditionType = "sidemount.io/VolumesReady"
	// ClientUpgraded is about the last upgrade of a client: True when it has succeeded, False when the client before serves on, Unknown while it is under way.
	ClientUpgraded corev1.PodConditionType = "sidemount.io/ClientUpgraded"
)

// Reasons of the conditions.
const (
	reasonServed     = "VolumesServed"
	reasonWaiting    = "ClientAway"
	reasonLost       = "OpenFilesLost"
	reasonUpgraded   = "Upgraded"
	reasonUpgrading  = "Upgrading"
	reasonNotUpgrade = "UpgradeFailed"
)

// Conditions returns what the API server should know about the volumes of a pod, nothing for a pod without any. It does not block.
func (k *Keeper) Conditions(pod *corev1.Pod) []corev1.PodCondition {
	var held []holding
	var states []broker.Session
	for i := range pod.Spec.Volumes {
		id := sidecar.SessionID(pod.UID, pod.Spec.Volumes[i].Name)
		h, ok := k.find(id)
		if !ok {
			continue
		}
		s, err := k.options.Broker.Status(id)
		if err != nil {
			s.Failure = err
		}
		held, states = append(held, h), append(states, s)
	}
	if len(held) == 0 {
		return nil
	}
	conditions := []corev1.PodCondition{ready(held, states)}
	if c, ok := upgraded(held); ok {
		conditions = append(conditions, c)
	}
	return conditions
}

func ready(held []holding, states []broker.Session) corev1.PodCondition {
	c := corev1.PodCondition{Type: VolumesReady, Status: corev1.ConditionTrue, Reason: reasonServed}
	var problems, losses []string
	for i, s := range states {
		if held[i].lost {
			losses = append(losses, fmt.Sprintf("volume %q was lost and mounted again: files that were open then only return errors", held[i].volume))
		}
		switch {
		case s.Ready:
		case s.Failure != nil:
			problems = append(problems, fmt.Sprintf("volume %q: %v", held[i].volume, s.Failure))
		default:
			problems = append(problems, fmt.Sprintf("volume %q: requests wait for its client", held[i].volume))
		}
	}
	if len(problems) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, reasonWaiting
	}
	if len(losses) > 0 {
		c.Reason = reasonLost
	}
	c.Message = strings.Join(append(losses, problems...), "; ")
	return c
}

// upgraded tells of all volumes whose upgrade was asked for by the same annotation, or by their PersistentVolumes. The annotation stands in the message, so that who has
// set it finds the answer.
func upgraded(held []holding) (corev1.PodCondition, bool) {
	c := corev1.PodCondition{Type: ClientUpgraded, Status: corev1.ConditionTrue, Reason: reasonUpgraded}
	var messages, asked []string
	failed, upgrading := false, false
	for _, h := range held {
		switch {
		case h.next != nil:
			upgrading = true
			messages = append(messages, fmt.Sprintf("volume %q: waiting for the client of image %s", h.volume, h.next.Image))
		case h.outcome != nil:
			failed = failed || h.outcome.Failed
			messages = append(messages, h.outcome.Message)
			if h.outcome.Asked != "" && !slices.Contains(asked, h.outcome.Asked) {
				asked = append(asked, h.outcome.Asked)
			}
		}
	}
	switch {
	case upgrading:
		c.Status, c.Reason = corev1.ConditionUnknown, reasonUpgrading
	case failed:
		c.Status, c.Reason = corev1.ConditionFalse, reasonNotUpgrade
	}
	c.Message = strings.Join(messages, "; ")
	for _, a := range asked {
		c.Message += Answer(a)
	}
	return c, len(messages) > 0
}

// Answer is how the message of ClientUpgraded ends when it is about a request.
func Answer(asked string) string { return " [" + asked + "]" }
