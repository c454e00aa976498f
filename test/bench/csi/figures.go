package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// metricsPort is the chart's default.
const metricsPort = "9808"

// figures are what the node service counts of itself, since its start.
type figures struct {
	// requests to the API server, answered in any way.
	requests float64
	// Publishes that found a client, and that had one started, with the time that they waited for it.
	shared, sharedSeconds float64
	cold, coldSeconds     float64
}

func (f figures) since(before figures) figures {
	return figures{f.requests - before.requests, f.shared - before.shared, f.sharedSeconds - before.sharedSeconds, f.cold - before.cold, f.coldSeconds - before.coldSeconds}
}

// figures asks the node service of the ordinary node.
func (b *benchmark) figures(ctx context.Context) (figures, error) {
	pods := b.lab.Client.CoreV1().Pods(b.chart.Namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=node", FieldSelector: "spec.nodeName=" + lab.OrdinaryNode})
	if err != nil {
		return figures{}, err
	}
	if len(list.Items) != 1 {
		return figures{}, fmt.Errorf("%d pods of the node service on %s", len(list.Items), lab.OrdinaryNode)
	}
	raw, err := pods.ProxyGet("http", list.Items[0].Name, metricsPort, "/metrics", nil).DoRaw(ctx)
	if err != nil {
		return figures{}, fmt.Errorf("read metrics of the node service: %w", err)
	}
	return parseFigures(raw)
}

// parseFigures reads Prometheus' text format. A service without a request to the API server is not one that we know.
func parseFigures(raw []byte) (figures, error) {
	const acquire = "sidemount_mountpod_acquire_seconds"
	var f figures
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		series, number, ok := strings.Cut(lines.Text(), "} ")
		if !ok {
			continue
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			continue
		}
		shared := strings.Contains(series, `start="shared"`)
		switch name, _, _ := strings.Cut(series, "{"); {
		case name == "rest_client_requests_total":
			f.requests += value
		case name == acquire+"_count" && shared:
			f.shared += value
		case name == acquire+"_sum" && shared:
			f.sharedSeconds += value
		case name == acquire+"_count":
			f.cold += value
		case name == acquire+"_sum":
			f.coldSeconds += value
		}
	}
	if f.requests == 0 {
		return f, fmt.Errorf("the node service counts no requests to the API server")
	}
	return f, lines.Err()
}

// median of numbers; 0 of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}
