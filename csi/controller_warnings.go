package csi

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// finalizerWarning is told where a StorageClass asks for what the controller does not do.
func finalizerWarning(parameters map[string]string) []string {
	if parameters[finalizerParameter] != "true" {
		return nil
	}
	return []string{fmt.Sprintf("StorageClass: parameter %s is not followed: the controller changes no Secret; keep the Secret for as long as there are volumes, "+
		"since without it none is deleted", finalizerParameter)}
}

// warn tells the claim's user which settings of its StorageClass are not followed. Without a claim the log is told.
func (c *controller) warn(ctx context.Context, id string, parameters map[string]string, warnings []string) {
	if len(warnings) == 0 {
		return
	}
	claim := c.claimReference(ctx, parameters)
	for _, warning := range warnings {
		if claim == nil {
			c.log.WithField("volume", id).WithField("warning", warning).Warn("setting is not followed")
			continue
		}
		c.recorder.Event(claim, corev1.EventTypeWarning, "VolumeSettingIgnored", warning)
	}
}

// claimReference names the claim that a volume is made for, nil if there is none to be told. It is read for its uid, without which kubectl describe
// shows no event; a claim that cannot be read is named all the same.
func (c *controller) claimReference(ctx context.Context, parameters map[string]string) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: parameters[claimNSParameter], Name: parameters[claimNameParameter],
	}
	if c.recorder == nil || ref.Name == "" || ref.Namespace == "" {
		return nil
	}
	if c.claims == nil {
		return ref
	}
	if claim, err := c.claims.PersistentVolumeClaim(ctx, ref.Namespace, ref.Name); err == nil {
		ref.UID = claim.UID
	}
	return ref
}
