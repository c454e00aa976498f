package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidemount/sidemount/mount/mountpoint"
)

// installOptions are the flags of "sidemount node install" and "uninstall" that a node does not have.
type installOptions struct {
	// program is the program that the unit starts; by default this one.
	program string
	unitDir string
	envFile string
	// systemctl runs systemctl; booted is the directory by which systemd says that it runs this host (sd_booted(3)).
	systemctl func(ctx context.Context, args ...string) error
	booted    string

	start, force, print bool
}

func newInstallOptions() *installOptions {
	return &installOptions{systemctl: systemctl, booted: "/run/systemd/system"}
}

func newNodeInstallCommand() *cobra.Command {
	o, node, files := newInstallOptions(), &nodeOptions{}, pflag.NewFlagSet("install", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Write a systemd unit that runs a virtual node on this host, and its settings into a file beside it",
		Long: "Write a systemd unit that runs a virtual node on this host.\n\nAll flags of \"sidemount node\" are accepted; those that are given, here or by their environment variables, " +
			"are written to --env-file, which replaces what was there. The unit looks at the host with \"sidemount preflight\" before each start. " +
			"The command may be repeated; it says what it has changed, and what is missing.\n\n" +
			"The unit starts this program where it is now, so put it and sidemount-agent in their place first.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			unit, err := newUnit(o, node, cmd.Flags(), files)
			if err != nil {
				return err
			}
			if o.print {
				return unit.print(cmd.OutOrStdout())
			}
			return o.install(cmd.Context(), cmd.OutOrStdout(), unit)
		},
	}
	node.addTo(cmd.Flags())
	o.addPlaces(files)
	files.BoolVar(&o.start, "start", false, "enable and start the unit, or restart it if something has changed; its pods go on")
	files.BoolVar(&o.print, "print", false, "print the unit and its settings, and write nothing")
	cmd.Flags().AddFlagSet(files)
	return cmd
}

func newNodeUninstallCommand() *cobra.Command {
	o := newInstallOptions()
	var rootDir string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the systemd unit of a virtual node and remove it with its settings",
		Long: "Stop the systemd unit of a virtual node and remove it with its settings.\n\nIt refuses while volumes of pods are mounted, because the pods would go on with nobody " +
			"to look after them: drain and delete the Node first. Nothing below --root-dir is removed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return o.uninstall(cmd.Context(), cmd.OutOrStdout(), rootDir)
		},
	}
	o.addPlaces(cmd.Flags())
	cmd.Flags().StringVar(&rootDir, "root-dir", "/var/lib/sidemount", "--root-dir of the node")
	cmd.Flags().BoolVar(&o.force, "force", false, "also while volumes are mounted; they and their pods stay as they are")
	return cmd
}

func (o *installOptions) addPlaces(f *pflag.FlagSet) {
	f.StringVar(&o.unitDir, "unit-dir", "/etc/systemd/system", "directory of the unit "+unitName)
	f.StringVar(&o.envFile, "env-file", "/etc/sidemount/node.env", "file of the node's settings")
}

func (o *installOptions) complete() (err error) {
	for name, path := range map[string]string{"unit-dir": o.unitDir, "env-file": o.envFile} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("--%s %q: want an absolute path", name, path)
		}
	}
	if o.program == "" {
		if o.program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	return nil
}

// install writes the files and tells systemd. What is there already is left as it is.
func (o *installOptions) install(ctx context.Context, out io.Writer, u *unit) error {
	changed := false
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{{o.envFile, u.environment, 0o600}, {o.unitPath(), u.text, 0o644}} {
		wrote, err := writeChanged(f.path, f.content, f.mode)
		if err != nil {
			return err
		}
		said := "unchanged"
		if wrote {
			changed, said = true, "written"
		}
		fmt.Fprintf(out, "%s: %s\n", f.path, said)
	}
	if !o.underSystemd() {
		if o.start {
			return errors.New("systemd does not run this host, so nothing can be started; copy the unit to one where it does, or start the program yourself")
		}
		fmt.Fprintln(out, "systemd does not run this host; the unit is only a file here")
		return nil
	}
	if err := o.systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if !o.start {
		fmt.Fprintf(out, "start it: systemctl enable --now %s\n", unitName)
		return nil
	}
	if err := o.systemctl(ctx, "enable", unitName); err != nil {
		return err
	}
	verb := "start" // does nothing where it runs
	if changed {
		verb = "restart"
	}
	if err := o.systemctl(ctx, verb, unitName); err != nil {
		return fmt.Errorf("%w; journalctl -u %s tells why", err, unitName)
	}
	fmt.Fprintf(out, "%s: enabled and running\n", unitName)
	return nil
}

// uninstall undoes install. Files that are not there are success.
func (o *installOptions) uninstall(ctx context.Context, out io.Writer, rootDir string) error {
	if !o.force {
		if err := unmounted(rootDir); err != nil {
			return err
		}
	}
	if _, err := os.Stat(o.unitPath()); err == nil && o.underSystemd() {
		if err := o.systemctl(ctx, "disable", "--now", unitName); err != nil {
			return err
		}
	}
	for _, path := range []string{o.unitPath(), o.envFile} {
		err := os.Remove(path)
		said := "removed"
		if errors.Is(err, os.ErrNotExist) {
			err, said = nil, "not there"
		}
		if err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		fmt.Fprintf(out, "%s: %s\n", path, said)
	}
	if !o.underSystemd() {
		return nil
	}
	return o.systemctl(ctx, "daemon-reload")
}

// unmounted fails if volumes are mounted below the node's directory.
func unmounted(rootDir string) error {
	dir, err := filepath.EvalSymlinks(rootDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	entries, err := mountpoint.Under(filepath.Join(dir, "pods"))
	if err != nil {
		return fmt.Errorf("uninstall: read the mount table: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	return fmt.Errorf("%d volumes of pods are mounted below %s, the first at %s: kubectl drain the node and delete it, then come again; "+
		"--force leaves them without anybody to unmount them", len(entries), dir, entries[0].Point)
}

func (o *installOptions) unitPath() string { return filepath.Join(o.unitDir, unitName) }

func (o *installOptions) underSystemd() bool {
	info, err := os.Stat(o.booted)
	return err == nil && info.IsDir()
}
