package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sidemount/sidemount/hack/cluster/internal/image"
)

// Options say from where to where.
type Options struct {
	// Source is the directory hack/cluster of a checkout.
	Source string
	// Bin receives the programs and, below images/, the archives of the base images.
	Bin string
}

// Run builds what is missing or older than its inputs and reports on progress what takes long.
func Run(ctx context.Context, o Options, progress io.Writer) error {
	if err := installPackages(ctx, progress); err != nil {
		return err
	}
	version, err := goVersion(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.Bin, "images"), 0o755); err != nil {
		return err
	}
	for _, t := range targets() {
		if err := t.build(ctx, o, version, progress); err != nil {
			return err
		}
	}
	if err := linkComponents(o.Bin); err != nil {
		return err
	}
	return baseImages(o.Bin)
}

// Missing names the first program or image that Run has not made yet, "" when all are there.
func Missing(bin string) string {
	var all []string
	for _, t := range targets() {
		all = append(all, t.outputs...)
	}
	for _, f := range append(append(all, Components...), BaseImages(bin)...) {
		if !filepath.IsAbs(f) {
			f = filepath.Join(bin, f)
		}
		if _, err := os.Stat(f); err != nil {
			return f
		}
	}
	return ""
}

// BaseImages are the archives that every cluster's registry starts with.
func BaseImages(bin string) []string {
	return []string{filepath.Join(bin, "images", "pause.tar"), filepath.Join(bin, "images", "busybox.tar")}
}

// baseImages are cheap enough to be made each time, so that they always hold the program of the day.
func baseImages(bin string) error {
	dir := filepath.Join(bin, "images")
	if err := image.Build(image.Pause(filepath.Join(bin, "pause")), filepath.Join(dir, "pause.tar")); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox is missing: %w", err)
	}
	scratch, err := os.MkdirTemp("", "busybox-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	spec, err := image.Busybox(busybox, scratch)
	if err != nil {
		return err
	}
	return image.Build(spec, filepath.Join(dir, "busybox.tar"))
}
