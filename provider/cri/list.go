package cri

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// statusParallel is how many status calls for one pod are under way at a time.
const statusParallel = 8

// Pods returns all pods of the node as two lists from the runtime show them, sorted by UID: what exists, in which state.
// Addresses, exit codes, times and paths are not filled; Runtime.Pod has them.
func (r *Runtime) Pods(ctx context.Context) ([]Pod, error) {
	sandboxes, containers, err := r.list(ctx, map[string]string{NodeLabel: r.opts.Node})
	if err != nil {
		return nil, err
	}
	pods := map[types.UID]*Pod{}
	pod := func(labels map[string]string) *Pod {
		uid := types.UID(labels[labelPodUID])
		if pods[uid] == nil {
			pods[uid] = &Pod{UID: uid, Namespace: labels[labelPodNamespace], Name: labels[labelPodName]}
		}
		return pods[uid]
	}
	for _, s := range sandboxes {
		p := pod(s.Labels)
		p.Sandboxes = append(p.Sandboxes, fromSandbox(s))
	}
	for _, c := range containers {
		p := pod(c.Labels)
		p.Containers = append(p.Containers, fromContainer(c))
	}
	out := make([]Pod, 0, len(pods))
	for _, p := range pods {
		p.sort()
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Pod) int { return cmp.Compare(a.UID, b.UID) })
	return out, nil
}

// Pod returns everything that the runtime knows about a pod. A pod that it does not know has neither sandboxes nor containers;
// that is not an error.
func (r *Runtime) Pod(ctx context.Context, uid types.UID) (Pod, error) {
	p := Pod{UID: uid}
	sandboxes, containers, err := r.list(ctx, map[string]string{NodeLabel: r.opts.Node, labelPodUID: string(uid)})
	if err != nil {
		return p, err
	}
	p.Sandboxes = make([]Sandbox, len(sandboxes))
	p.Containers = make([]Container, len(containers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statusParallel)
	for i, s := range sandboxes {
		p.Namespace, p.Name = s.Labels[labelPodNamespace], s.Labels[labelPodName]
		group.Go(func() (err error) {
			p.Sandboxes[i], err = r.sandboxStatus(ctx, s)
			return err
		})
	}
	for i, c := range containers {
		p.Namespace, p.Name = c.Labels[labelPodNamespace], c.Labels[labelPodName]
		group.Go(func() (err error) {
			p.Containers[i], err = r.ContainerStatus(ctx, c.Id)
			return ignoreMissing(err)
		})
	}
	if err := group.Wait(); err != nil {
		return Pod{UID: uid}, err
	}
	// What was removed between the list and the status has no id.
	p.Sandboxes = slices.DeleteFunc(p.Sandboxes, func(s Sandbox) bool { return s.ID == "" })
	p.Containers = slices.DeleteFunc(p.Containers, func(c Container) bool { return c.ID == "" })
	p.attachSandboxes(containers)
	p.sort()
	return p, nil
}

// list returns the sandboxes and containers that bear the labels. The sandboxes are listed first: a container in the second
// list whose sandbox is not in the first was created in between, and the event of its creation makes the caller ask again.
func (r *Runtime) list(ctx context.Context, labels map[string]string) ([]*runtimeapi.PodSandbox, []*runtimeapi.Container, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	sandboxes, err := r.client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: labels}})
	if err != nil {
		return nil, nil, wrap(err, "list sandboxes")
	}
	containers, err := r.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: labels}})
	if err != nil {
		return nil, nil, wrap(err, "list containers")
	}
	return sandboxes.GetItems(), containers.GetContainers(), nil
}

// sandboxStatus adds the addresses to a listed sandbox that is ready; others have none worth a call.
func (r *Runtime) sandboxStatus(ctx context.Context, listed *runtimeapi.PodSandbox) (Sandbox, error) {
	s := fromSandbox(listed)
	if !s.Ready {
		return s, nil
	}
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.ID})
	err = wrap(err, "status of sandbox %s", s.ID)
	if errors.Is(err, ErrNotFound) {
		return Sandbox{}, nil
	}
	if err != nil {
		return Sandbox{}, err
	}
	s.Ready = resp.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	s.IPs = addresses(resp.GetStatus().GetNetwork())
	return s, nil
}

// attachSandboxes fills Container.SandboxID, which a container's status does not have.
func (p *Pod) attachSandboxes(listed []*runtimeapi.Container) {
	sandbox := make(map[string]string, len(listed))
	for _, c := range listed {
		sandbox[c.Id] = c.PodSandboxId
	}
	for i := range p.Containers {
		p.Containers[i].SandboxID = sandbox[p.Containers[i].ID]
	}
}

// sort puts the newest sandboxes and containers first, in an order that does not change from call to call.
func (p *Pod) sort() {
	slices.SortFunc(p.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Containers, func(a, b Container) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.ID, b.ID))
	})
}
