package main

import (
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clients are three connections to the API server, so that a burst of one kind of call cannot delay another: of pod statuses a
// heartbeat, of events a pod status.
type clients struct {
	pods, events, heartbeats kubernetes.Interface
	// host is the API server's URL.
	host string
}

// connect makes the clients; nothing is sent yet. Without a kubeconfig the pod's service account is used.
func connect(kubeconfig string) (*clients, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.UserAgent = "sidemount/" + version
	c := &clients{host: config.Host}
	if c.pods, err = client(config, 100, 200, 0); err != nil {
		return nil, err
	}
	if c.events, err = client(config, 50, 100, 30*time.Second); err != nil {
		return nil, err
	}
	// A heartbeat that takes longer than the pause between two of them is better tried anew.
	if c.heartbeats, err = client(config, 0, 0, 10*time.Second); err != nil {
		return nil, err
	}
	return c, nil
}

// client makes a client with its own limit of calls in a second; qps 0 means no limit. A timeout would also end watches, so the
// client that watches has none; its calls have their contexts.
func client(config *rest.Config, qps float32, burst int, timeout time.Duration) (kubernetes.Interface, error) {
	own := rest.CopyConfig(config)
	own.QPS, own.Burst, own.Timeout = qps, burst, timeout
	if qps == 0 {
		own.QPS = -1
	}
	c, err := kubernetes.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	return c, nil
}
