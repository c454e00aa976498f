package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/recovery/report"
)

// volumeName is what the pods call their volume.
const volumeName = "data"

// subject is a pod with a volume: what is killed, and who must not notice.
type subject struct {
	name string
	// kind is the client's.
	kind string
	// workloads run in the pod, each in a container of its own.
	workloads []string
	files     *lab.FileSystem
	results   string
	// logs is the directory of the pod's logs.
	logs string
	// evidence is what was kept when something went wrong, by file.
	evidence map[string]string

	uid types.UID
	// server is the pod with the agent and the client, if it is not the subject itself: the Mount Pod, of the name mountPod. nodeService is
	// the pod of the driver that was killed last.
	server, nodeService types.UID
	mountPod            string
	// yielded is when the Mount Pod that was deleted last began to give its session away, zero if it ended first.
	yielded time.Time
	// coldStart is how long the first client took from its start to serving.
	coldStart time.Duration
	kills     []kill
	upgrades  int
}

// podLogs is the directory with the logs of the subject's containers.
func (s *subject) podLogs(root, namespace string) string {
	return filepath.Join(root, namespace+"_"+s.name+"_"+string(s.uid))
}

// sidecarLogs are the logs of all sidecars that the subject has had, the newest last.
func (s *subject) sidecarLogs() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(s.logs, "sidemount-*", "*.log"))
	if err != nil {
		return nil, err
	}
	written := map[string]time.Time{}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			written[path] = info.ModTime()
		}
	}
	slices.SortFunc(paths, func(a, b string) int { return written[a].Compare(written[b]) })
	return paths, nil
}

// keepEvidence reads the logs of the sidecars, which go with the pod.
func (s *subject) keepEvidence() {
	paths, err := s.sidecarLogs()
	if err != nil {
		return
	}
	s.evidence = map[string]string{}
	for _, path := range paths {
		if raw, err := os.ReadFile(path); err == nil {
			s.evidence[filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)] = string(raw)
		}
	}
}

// session is how the node's log names the subject's session.
func (s *subject) session() string { return string(sidecar.SessionID(s.uid, volumeName)) }

// servedBy is the pod with the agent and the client.
func (s *subject) servedBy() types.UID {
	if s.server != "" {
		return s.server
	}
	return s.uid
}

// agent is the first process of the sidecar.
func (s *subject) agent() (int, error) {
	pids, err := lab.Processes(s.servedBy(), "sidemount-agent run")
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("pod %s has %d agents", s.name, len(pids))
	}
	return pids[0], nil
}

// client is the process that serves the volume: the agent's child.
func (s *subject) client() (int, error) {
	agent, err := s.agent()
	if err != nil {
		return 0, err
	}
	all, err := lab.Processes(s.servedBy(), "")
	if err != nil {
		return 0, err
	}
	for _, pid := range all {
		status, err := lab.Status(pid)
		if err == nil && status["PPid"] == strconv.Itoa(agent) && !strings.HasPrefix(status["State"], "Z") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("pod %s has no client at the moment", s.name)
}

// progress is what each workload has done so far.
func (s *subject) progress() (map[string]report.Progress, error) {
	all := map[string]report.Progress{}
	for _, w := range s.workloads {
		p, err := report.ReadProgress(s.results, w)
		if err != nil {
			return nil, err
		}
		all[w] = p
	}
	return all, nil
}

// behind names a workload that has not gone on since, and one that has found something wrong.
func (s *subject) behind(since map[string]report.Progress) (string, error) {
	now, err := s.progress()
	if err != nil {
		return "", err
	}
	for w, p := range now {
		if p.Failures > 0 || p.Lost > 0 {
			return "", fmt.Errorf("workload %s of pod %s has met %d errors and %d lost bytes: %s", w, s.name, p.Failures, p.Lost, p.Error)
		}
		if p.Ops <= since[w].Ops {
			return w, nil
		}
	}
	return "", nil
}

// started reads what the agents' logs say of the newest start of a client since a time; nil if they do not, or not yet.
func (s *subject) started(since time.Time) (record, error) {
	logs, err := s.sidecarLogs()
	if err != nil {
		return nil, err
	}
	var last record
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(raw)) {
			r := parseLine(line)
			if at, err := time.Parse(time.RFC3339Nano, r["time"]); err == nil && r["msg"] == "the client serves" && at.After(since) {
				last, since = r, at
			}
		}
	}
	return last, nil
}

// unhurt tells whether the application's containers are the ones that were started.
func unhurt(p *corev1.Pod) error {
	for _, c := range p.Status.ContainerStatuses {
		if c.RestartCount != 0 {
			return fmt.Errorf("container %s of pod %s was restarted", c.Name, p.Name)
		}
	}
	return nil
}
