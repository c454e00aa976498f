package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/bench"
)

// manyLabel marks the claims that are made at once.
const manyLabel = "bench"

// hands is how many requests for claims are under way at the same time.
const hands = 10

func (b *benchmark) claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, StorageClassName: ptr.To(class),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

// bind creates a claim and returns the time until it is bound.
func (b *benchmark) bind(ctx context.Context, name string) (time.Duration, error) {
	claims := b.lab.Client.CoreV1().PersistentVolumeClaims(b.namespace)
	took, err := timed(ctx, claims, named(name), func() error {
		_, err := claims.Create(ctx, b.claim(name), metav1.CreateOptions{})
		return err
	}, func(e watch.Event) bool { return volumeOf(e) != "" })
	if err != nil {
		return 0, fmt.Errorf("bind claim %s: %w", name, err)
	}
	return took, nil
}

// unbind removes a claim and returns the time until its PersistentVolume is gone, and so its directory.
func (b *benchmark) unbind(ctx context.Context, name string) (time.Duration, error) {
	claims := b.lab.Client.CoreV1().PersistentVolumeClaims(b.namespace)
	c, err := claims.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	took, err := timed(ctx, b.lab.Client.CoreV1().PersistentVolumes(), named(c.Spec.VolumeName), func() error {
		return claims.Delete(ctx, name, metav1.DeleteOptions{})
	}, removed)
	if err != nil {
		return 0, fmt.Errorf("remove the volume of claim %s: %w", name, err)
	}
	return took, nil
}

// volumeOf is the PersistentVolume of a claim that is bound; empty for any other event.
func volumeOf(e watch.Event) string {
	c, ok := e.Object.(*corev1.PersistentVolumeClaim)
	if !ok || c.Status.Phase != corev1.ClaimBound {
		return ""
	}
	return c.Spec.VolumeName
}

// claimTimes binds and removes claims one after another.
func (b *benchmark) claimTimes(ctx context.Context) (string, error) {
	var bound, gone []time.Duration
	for i := range b.rounds {
		name := fmt.Sprintf("single-%d", i)
		took, err := b.bind(ctx, name)
		if err != nil {
			return "", err
		}
		bound = append(bound, took)
		if took, err = b.unbind(ctx, name); err != nil {
			return "", err
		}
		gone = append(gone, took)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "### Claims\n\n| %d claims, one after another | median ms | p99 ms |\n|---|---|---|\n", b.rounds)
	for _, row := range []struct {
		what string
		all  []time.Duration
	}{{"created → bound", bound}, {"removed → PersistentVolume and directory gone", gone}} {
		fmt.Fprintf(&s, "| %s | %d | %d |\n", row.what, bench.Median(row.all).Milliseconds(), bench.Percentile(row.all, 99).Milliseconds())
	}
	return s.String(), nil
}

// manyClaims makes claims at once and removes them at once.
func (b *benchmark) manyClaims(ctx context.Context) (string, error) {
	volumes := map[string]bool{}
	claims := b.lab.Client.CoreV1().PersistentVolumeClaims(b.namespace)
	all := metav1.ListOptions{LabelSelector: manyLabel}
	bound, err := timed(ctx, claims, all, func() error {
		return b.eachClaim(func(name string) error {
			c := b.claim(name)
			c.Labels = map[string]string{manyLabel: "many"}
			_, err := claims.Create(ctx, c, metav1.CreateOptions{})
			return err
		})
	}, func(e watch.Event) bool {
		if v := volumeOf(e); v != "" {
			volumes[v] = true
		}
		return len(volumes) == b.claims
	})
	if err != nil {
		return "", fmt.Errorf("%d of %d bound: %w", len(volumes), b.claims, err)
	}
	gone, err := timed(ctx, b.lab.Client.CoreV1().PersistentVolumes(), metav1.ListOptions{}, func() error {
		return b.eachClaim(func(name string) error { return claims.Delete(ctx, name, metav1.DeleteOptions{}) })
	}, func(e watch.Event) bool {
		if v, ok := e.Object.(*corev1.PersistentVolume); ok && removed(e) {
			delete(volumes, v.Name)
		}
		return len(volumes) == 0
	})
	if err != nil {
		return "", fmt.Errorf("%d of %d left: %w", len(volumes), b.claims, err)
	}
	return fmt.Sprintf("| %d claims at once | s | ms for each |\n|---|---|---|\n| created → all bound | %.1f | %d |\n| removed → all PersistentVolumes and directories gone | %.1f | %d |\n",
		b.claims, bound.Seconds(), bound.Milliseconds()/int64(b.claims), gone.Seconds(), gone.Milliseconds()/int64(b.claims)), nil
}

func (b *benchmark) eachClaim(do func(name string) error) error {
	var group errgroup.Group
	group.SetLimit(hands)
	for i := range b.claims {
		group.Go(func() error { return do(fmt.Sprintf("many-%d", i)) })
	}
	return group.Wait()
}
