package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// newClientCommand is for people: it speaks to the API server with their own rights.
func newClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Look after the clients that serve the volumes of running pods",
	}
	cmd.AddCommand(newClientUpgradeCommand())
	return cmd
}

func newClientUpgradeCommand() *cobra.Command {
	u := &upgrade{}
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "upgrade POD",
		Short: "Replace the clients of a pod's volumes without a restart of the pod",
		Long: `Replace the clients of a pod's volumes without a restart of the pod.

The next client is made from what PersistentVolumes, Secrets and the node say now. It starts beside the present one and takes the volume
over when it is ready; the application sees a pause of milliseconds, and nothing at all if the next client cannot start.

--image writes the image into the annotation sidemount.io/client-image of the PersistentVolumes, which needs the right to patch them. All
other pods with these volumes follow within a minute or two.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u.pod, u.out = args[0], cmd.OutOrStdout()
			var err error
			if u.client, u.namespace, err = userClient(kubeconfig, u.namespace); err != nil {
				return err
			}
			ctx, cancel := u.limited(cmd.Context())
			defer cancel()
			return u.run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&u.namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig's context)")
	flags.StringVar(&u.volume, "volume", "", "name of the volume in the pod (default: all volumes)")
	flags.StringVar(&u.image, "image", "", "image of the client, for the volume and whoever else uses it (default: what the volume and the node say)")
	flags.DurationVar(&u.timeout, "timeout", 7*time.Minute, "how long to wait for the result")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the user (default: $KUBECONFIG, ~/.kube/config or the pod's service account)")
	return cmd
}

// userClient connects as kubectl does.
func userClient(path, namespace string) (kubernetes.Interface, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	config, err := loaded.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %s", oneLine(err.Error()))
	}
	config.UserAgent = "sidemount/" + version
	if namespace == "" {
		if namespace, _, err = loaded.Namespace(); err != nil {
			return nil, "", fmt.Errorf("read kubeconfig: %w", err)
		}
	}
	client, err := kubernetes.NewForConfig(config)
	return client, namespace, err
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// say writes for the user; one who does not listen is not told.
func say(out io.Writer, format string, args ...any) {
	if out == nil {
		out = os.Stdout
	}
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}
