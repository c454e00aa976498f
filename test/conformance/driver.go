package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// class is the StorageClass, and the VolumeSnapshotClass, that tests copy.
const class = "conformance"

// installDriver installs the chart with a StorageClass on a Redis and describes the driver to the tests.
func installDriver(ctx context.Context, l *lab.Lab, o options) ([]string, error) {
	if err := l.PushChartImages(ctx); err != nil {
		return nil, err
	}
	if err := l.InstallSnapshotCRDs(ctx); err != nil {
		return nil, err
	}
	const namespace = "conformance-redis"
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := l.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	redis, err := l.StartRedis(ctx, namespace)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "conformance: installing the chart")
	_, err = l.InstallChart(ctx, lab.Values{
		"storageClasses": []lab.Values{lab.StorageClass(class, redis.JuiceFS(class, 0))},
		"snapshots": lab.Values{"enabled": true, "controller": true, "classes": []lab.Values{
			{"name": class, "storageClass": class},
		}},
	})
	if err != nil {
		return nil, err
	}
	file, err := filepath.Abs(filepath.Join(o.out, o.suite+"-"+o.node+".yaml"))
	if err != nil {
		return nil, err
	}
	description := strings.NewReplacer("NODE", o.node, "CLASS", class).Replace(driver)
	return []string{"--storage.testdriver", file}, os.WriteFile(file, []byte(description), 0o644)
}

// driver is what the tests may expect of the driver.
const driver = `
StorageClass: {FromExistingClassName: CLASS}
SnapshotClass: {FromExistingClassName: CLASS}
InlineVolumes: []
ClientNodeName: NODE
DriverInfo:
  Name: csi.sidemount.io
  MaxFileSize: 104857600
  SupportedSizeRange: {Min: 1Mi, Max: 1Ti}
  SupportedFsType: {"": {}}
  RequiredAccessModes: [ReadWriteOnce]
  Capabilities:
    persistence: true
    block: false
    fsGroup: false
    exec: true
    multipods: true
    RWX: true
    readWriteOncePod: true
    controllerExpansion: true
    nodeExpansion: false
    onlineExpansion: true
    offlineExpansion: true
    snapshotDataSource: true
    pvcDataSource: true
    singleNodeVolume: false
    topology: false
    multiplePVsSameID: true
    capReadOnlyMany: true
  StressTestOptions: {NumPods: 4, NumRestarts: 3}
  VolumeSnapshotStressTestOptions: {NumPods: 2, NumSnapshots: 2}
`
