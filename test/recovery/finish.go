package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// finish ends the workloads, ends the pods in order, and has every file checked through mounts that are made anew.
func (t *trial) finish(ctx context.Context) error {
	t.say("ending the workloads")
	for _, s := range t.subjects {
		if err := os.WriteFile(filepath.Join(s.results, report.StopFile), nil, 0o644); err != nil {
			return err
		}
	}
	var group errgroup.Group
	all := make([]error, len(t.subjects))
	for i, s := range t.subjects {
		group.Go(func() error {
			all[i] = t.close(ctx, s)
			return nil
		})
	}
	err := group.Wait()
	for _, s := range t.subjects {
		err = errors.Join(err, t.collect(s, s.workloads))
		t.measure(s)
	}
	if err := errors.Join(append(all, err)...); err != nil {
		return err
	}
	t.say("checking all files through new mounts")
	for _, s := range t.subjects {
		if err := t.audit(ctx, s); err != nil {
			return fmt.Errorf("check the files of pod %s: %w", s.name, err)
		}
	}
	return nil
}

// close waits until a subject's workloads have ended by themselves, and removes its pod.
func (t *trial) close(ctx context.Context, s *subject) error {
	p, err := t.reaches(ctx, s.name, corev1.PodSucceeded)
	if err != nil {
		return err
	}
	return errors.Join(unhurt(p), t.remove(ctx, s.name))
}

// collect reads the reports of a subject's workloads.
func (t *trial) collect(s *subject, workloads []string) error {
	var err error
	for _, w := range workloads {
		r, failed := report.Read(s.results, w)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("report of workload %s of pod %s: %w", w, s.name, failed))
			continue
		}
		t.reports[s.name+"/"+w] = r
	}
	return err
}

// measure finds out what a subject's workloads felt of each kill.
func (t *trial) measure(s *subject) {
	own := t.reportsOf(s)
	since := t.began
	for i := range s.kills {
		s.kills[i].Stall = stallOf(own, since, s.kills[i].At, s.kills[i].Until)
		since = s.kills[i].Until
	}
}

func (t *trial) reportsOf(s *subject) []*report.Report {
	var own []*report.Report
	for _, w := range s.workloads {
		if r := t.reports[s.name+"/"+w]; r != nil {
			own = append(own, r)
		}
	}
	return own
}

// audit runs a pod with a session of its own that reads every file that must be there.
func (t *trial) audit(ctx context.Context, s *subject) error {
	var files []report.File
	for _, r := range t.reportsOf(s) {
		files = append(files, r.Files...)
	}
	if err := report.WriteAudit(s.results, files); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.results, report.StopFile)); err != nil {
		return err
	}
	const workload = "audit"
	name := s.name + "-" + workload
	if _, err := t.lab.Client.CoreV1().Pods(t.namespace).Create(ctx, t.pod(s, name, []string{workload}), metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := t.reaches(ctx, name, corev1.PodSucceeded); err != nil {
		return err
	}
	s.workloads = append(s.workloads, workload)
	return errors.Join(t.collect(s, []string{workload}), t.remove(ctx, name))
}
