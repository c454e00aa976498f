package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Driver is the name of our CSI driver.
const Driver = "csi.sidemount.io"

// Data is the host's directory below which file systems for tests lie.
const Data = "/var/lib/sidemount-lab"

// FileSystem describes a PV, its PVC and its Secret, all of one name, before they are created.
type FileSystem struct {
	PV     *corev1.PersistentVolume
	PVC    *corev1.PersistentVolumeClaim
	Secret *corev1.Secret
	// Dir is where it keeps its data on the host.
	Dir string
}

// JuiceFS describes a volume with SQLite metadata and a directory as object storage.
func JuiceFS(namespace, name string) (*FileSystem, error) {
	f, err := describe(namespace, name)
	if err != nil {
		return nil, err
	}
	f.Secret.StringData = map[string]string{
		"name": "lab", "metaurl": "sqlite3://" + f.Dir + "/meta.db", "storage": "file", "bucket": f.Dir + "/bucket/",
	}
	f.PV.Spec.CSI.NodePublishSecretRef = &corev1.SecretReference{Namespace: namespace, Name: name}
	f.PV.Spec.CSI.VolumeAttributes["juicefs/host-path"] = f.Dir
	return f, nil
}

// Passthrough describes a volume that is a directory of the host.
func Passthrough(namespace, name string) (*FileSystem, error) {
	f, err := describe(namespace, name)
	if err != nil {
		return nil, err
	}
	f.Secret = nil
	f.PV.Spec.CSI.VolumeAttributes["sidemount.io/client"] = "passthrough"
	f.PV.Spec.CSI.VolumeAttributes["path"] = f.Dir
	return f, nil
}

// RemoveData removes the data of the file systems of namespaces whose names begin so. Others may be at work beside.
func RemoveData(namespaces string) error {
	dirs, err := filepath.Glob(filepath.Join(Data, namespaces+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.Remove(Data); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

func describe(namespace, name string) (*FileSystem, error) {
	full := namespace + "-" + name
	dir := filepath.Join(Data, full)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the volume's directory: %w", err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		return nil, fmt.Errorf("give the volume's directory to the sidecar's user: %w", err)
	}
	capacity := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	return &FileSystem{
		Dir:    dir,
		Secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}},
		PV: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: full},
			Spec: corev1.PersistentVolumeSpec{
				Capacity: capacity, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				ClaimRef: &corev1.ObjectReference{Namespace: namespace, Name: name},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
					Driver: Driver, VolumeHandle: full,
					VolumeAttributes: map[string]string{
						"juicefs/mount-cpu-request": "10m", "juicefs/mount-memory-request": "64Mi",
					},
				}},
			},
		},
		PVC: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: modes, StorageClassName: ptr.To(""), VolumeName: full,
				Resources: corev1.VolumeResourceRequirements{Requests: capacity},
			},
		},
	}, nil
}

// Create creates the objects that are set.
func (f *FileSystem) Create(ctx context.Context, l *Lab) error {
	if f.Secret != nil {
		if _, err := l.Client.CoreV1().Secrets(f.Secret.Namespace).Create(ctx, f.Secret, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if f.PV != nil {
		if _, err := l.Client.CoreV1().PersistentVolumes().Create(ctx, f.PV, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if f.PVC != nil {
		if _, err := l.Client.CoreV1().PersistentVolumeClaims(f.PVC.Namespace).Create(ctx, f.PVC, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
