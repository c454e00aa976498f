package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// healthTimeout bounds all checks of one /healthz request together.
const healthTimeout = 10 * time.Second

// HealthCheck is one named check of /healthz.
type HealthCheck struct {
	Name  string
	Check func(ctx context.Context) error
}

// serveHealth answers "ok", or 500 with a line per check. /healthz/<name> runs a single one.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	checks := append([]HealthCheck{{Name: "ping", Check: func(context.Context) error { return nil }}}, s.options.Checks...)
	wanted := r.PathValue("check")
	var report strings.Builder
	var run, failed int
	for _, c := range checks {
		if wanted != "" && c.Name != wanted {
			continue
		}
		run++
		if err := c.Check(ctx); err != nil {
			failed++
			fmt.Fprintf(&report, "[-]%s failed: %v\n", c.Name, err)
			continue
		}
		fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
	}
	switch {
	case run == 0:
		writeText(w, http.StatusNotFound, "404 page not found")
	case failed > 0:
		writeText(w, http.StatusInternalServerError, report.String()+"healthz check failed\n")
	case r.URL.Query().Has("verbose"):
		writeText(w, http.StatusOK, report.String()+"healthz check passed\n")
	default:
		writeText(w, http.StatusOK, "ok")
	}
}

// serveConfig answers as the kubelet's /configz does, which tools read for single values such as maxPods.
func (s *Server) serveConfig(w http.ResponseWriter, r *http.Request) {
	if s.options.Config == nil {
		unserved(w)
		return
	}
	writeJSON(w, r, map[string]any{"kubeletconfig": s.options.Config})
}
