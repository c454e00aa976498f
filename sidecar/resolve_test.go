package sidecar

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sidemount/sidemount/mount"
)

// Shortcuts into a cluster loaded from testdata/static.in.yaml.
func (c *cluster) claim() *corev1.PersistentVolumeClaim { return c.claims["shop/data"] }
func (c *cluster) pv() *corev1.PersistentVolume         { return c.volumes["pv-data"] }
func (c *cluster) secret() *corev1.Secret               { return c.secrets["kube-system/jfs"] }
func (c *cluster) attrs(kv ...string) {
	c.pv().Spec.CSI.VolumeAttributes = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		c.pv().Spec.CSI.VolumeAttributes[kv[i]] = kv[i+1]
	}
}
func (c *cluster) key(key, value string) { c.secret().Data[key] = []byte(value) }
func (c *cluster) inline(attributes map[string]string) {
	c.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: DefaultDriver, VolumeAttributes: attributes,
		NodePublishSecretRef: &corev1.LocalObjectReference{Name: "mine"},
	}}
}

func ptr[T any](v T) *T { return &v }

// refusals are volumes that cannot be used, each one change away from testdata/static.in.yaml.
var refusals = []struct {
	name      string
	change    func(c *cluster)
	reason    Reason
	transient bool
	want      string
}{
	{"claim missing", func(c *cluster) { delete(c.claims, "shop/data") }, ReasonClaimNotFound, false,
		"PersistentVolumeClaim shop/data is not found, and volume data of Pod shop/web needs it; create the claim in namespace shop, or correct claimName in the pod"},
	{"claim pending, static", func(c *cluster) { c.claim().Status.Phase, c.claim().Spec.VolumeName = corev1.ClaimPending, "" }, ReasonClaimPending, true,
		"PersistentVolumeClaim shop/data is not bound to a PersistentVolume yet (status.phase); create a PersistentVolume that fits its accessModes, size and empty storageClassName, or name one in spec.volumeName"},
	{"claim pending, named volume", func(c *cluster) { c.claim().Status.Phase = corev1.ClaimPending }, ReasonClaimPending, true,
		"PersistentVolumeClaim shop/data is not bound to a PersistentVolume yet (status.phase); check that PersistentVolume pv-data exists, is Available, and has the claim's storageClassName, accessModes and at least its size"},
	{"claim pending, class", func(c *cluster) {
		c.claim().Status.Phase, c.claim().Spec.VolumeName, c.claim().Spec.StorageClassName = corev1.ClaimPending, "", ptr("fast")
	}, ReasonClaimPending, true,
		"PersistentVolumeClaim shop/data is not bound to a PersistentVolume yet (status.phase); look at the claim's events for the provisioner of StorageClass fast; if that class has volumeBindingMode: WaitForFirstConsumer, the pod must be placed by the scheduler (nodeSelector) and not by spec.nodeName"},
	{"claim pending, first consumer", func(c *cluster) {
		c.claim().Status.Phase, c.claim().Spec.VolumeName, c.claim().Spec.StorageClassName = "", "", ptr("fast")
		c.claim().Annotations = map[string]string{selectedNode: "virtual"}
	}, ReasonClaimPending, true,
		"PersistentVolumeClaim shop/data is not bound to a PersistentVolume yet (status.phase); the scheduler has chosen node virtual and the provisioner of StorageClass fast must make the volume; look at the claim's events"},
	{"claim lost", func(c *cluster) { c.claim().Status.Phase = corev1.ClaimLost }, ReasonClaimLost, false,
		"PersistentVolumeClaim shop/data has lost its PersistentVolume pv-data (status.phase); restore the PersistentVolume from a backup, or delete the claim and make a new one"},
	{"claim deleted", func(c *cluster) { c.claim().DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, ReasonClaimInvalid, false,
		"PersistentVolumeClaim shop/data is being deleted (metadata.deletionTimestamp); wait until it is gone and create it again, or use another claim"},
	{"claim for a block device", func(c *cluster) { c.claim().Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) }, ReasonPodUnsupported, false,
		"PersistentVolumeClaim shop/data asks for a raw block device, and a FUSE volume is a file system (spec.volumeMode); make a claim with volumeMode: Filesystem"},
	{"volume of another driver", func(c *cluster) { c.pv().Spec.CSI.Driver = "ebs.csi.aws.com" }, ReasonForeignDriver, false,
		"PersistentVolumeClaim shop/data is bound to PersistentVolume pv-data of driver ebs.csi.aws.com; this node serves volumes of csi.sidemount.io only (spec.volumeName); schedule the pod on an ordinary node, or use a volume of csi.sidemount.io"},
	{"volume without CSI", func(c *cluster) {
		c.pv().Spec.CSI = nil
		c.pv().Spec.NFS = &corev1.NFSVolumeSource{Server: "nfs", Path: "/"}
	}, ReasonForeignDriver, false,
		"PersistentVolumeClaim shop/data is bound to PersistentVolume pv-data which is not a CSI volume; this node serves volumes of csi.sidemount.io only (spec.volumeName); schedule the pod on an ordinary node, or use a volume of csi.sidemount.io"},
	{"volume missing", func(c *cluster) { delete(c.volumes, "pv-data") }, ReasonVolumeNotFound, false,
		"PersistentVolume pv-data is not found, and PersistentVolumeClaim shop/data is bound to it; restore the PersistentVolume, or delete the claim and make a new one"},
	{"volume of another namespace", func(c *cluster) { c.pv().Spec.ClaimRef.Namespace = "bank" }, ReasonVolumeInvalid, false,
		"PersistentVolume pv-data belongs to PersistentVolumeClaim bank/data and not to PersistentVolumeClaim shop/data (spec.claimRef); use the claim that the volume belongs to, or make a PersistentVolume of its own for this claim"},
	{"volume of an earlier claim", func(c *cluster) { c.pv().Spec.ClaimRef.UID = "uid-old" }, ReasonVolumeInvalid, false,
		"PersistentVolume pv-data belongs to an earlier claim with the name of PersistentVolumeClaim shop/data (spec.claimRef.uid); remove spec.claimRef from the volume if the new claim may have its data"},
	{"volume unbound", func(c *cluster) { c.pv().Spec.ClaimRef = nil }, ReasonVolumeInvalid, true,
		"PersistentVolume pv-data is not bound to a claim yet, though PersistentVolumeClaim shop/data names it (spec.claimRef); wait for the binding; if it does not come, compare storageClassName, accessModes and size of both"},
	{"volume failed", func(c *cluster) { c.pv().Status.Phase = corev1.VolumeFailed }, ReasonVolumeInvalid, false,
		"PersistentVolume pv-data has failed (status.phase); look at status.message of the PersistentVolume"},
	{"volume is a block device", func(c *cluster) { c.pv().Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) }, ReasonPodUnsupported, false,
		"PersistentVolume pv-data is a raw block device, and a FUSE volume is a file system (spec.volumeMode); make a PersistentVolume with volumeMode: Filesystem"},
	{"handle empty", func(c *cluster) { c.pv().Spec.CSI.VolumeHandle = " " }, ReasonVolumeInvalid, false,
		"PersistentVolume pv-data has an empty volumeHandle (spec.csi.volumeHandle); give it a handle that is unique in the cluster, the volume's own name for instance"},
	{"no secret named", func(c *cluster) { c.pv().Spec.CSI.NodePublishSecretRef = nil }, ReasonSecretNotFound, false,
		"PersistentVolume pv-data names no Secret, and a juicefs volume cannot be mounted without one (spec.csi.nodePublishSecretRef); name a Secret with the volume's credentials there; in a StorageClass set csi.storage.k8s.io/node-publish-secret-name and -namespace"},
	{"secret missing", func(c *cluster) { delete(c.secrets, "kube-system/jfs") }, ReasonSecretNotFound, false,
		"Secret kube-system/jfs is not found, and PersistentVolume pv-data names it in spec.csi.nodePublishSecretRef; create it in namespace kube-system, or correct the reference"},
	{"no metaurl", func(c *cluster) { delete(c.secret().Data, "metaurl") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has no metaurl (data[metaurl]); add the URL of the metadata engine, as in redis://:password@host:6379/1"},
	{"metaurl of spaces", func(c *cluster) { c.key("metaurl", " \n") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has no metaurl (data[metaurl]); add the URL of the metadata engine, as in redis://:password@host:6379/1"},
	{"enterprise", func(c *cluster) { delete(c.secret().Data, "metaurl"); c.key("token", "t0ken") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a token and no metaurl: it describes a volume of JuiceFS Enterprise, which is not served (data[metaurl]); use a volume of the community edition, or schedule the pod on an ordinary node with the JuiceFS CSI driver"},
	{"metaurl in two lines", func(c *cluster) { c.key("metaurl", "redis://a\nb") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a metaurl with a line break or another control character in it (data[metaurl]); write it as scheme://address, as in redis://:password@host:6379/1"},
	{"metaurl without address", func(c *cluster) { c.key("metaurl", "redis://") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a metaurl without an address (data[metaurl]); write it as scheme://address, as in redis://:password@host:6379/1"},
	{"metaurl of an unknown engine", func(c *cluster) { c.key("metaurl", "nosuchengine://user:hunter2@host/1") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a metaurl of a metadata engine that JuiceFS does not know; it knows redis, rediss, unix, sqlite3, mysql, postgres, tikv, etcd, fdb, badger, memkv (data[metaurl]); write it as scheme://address, as in redis://:password@host:6379/1"},
	{"SQLite out of sight", func(c *cluster) { c.key("metaurl", "sqlite3:///data/meta.db") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a SQLite file as metaurl that the client cannot see (data[metaurl]); give an absolute path, and its directory in the PersistentVolume's attribute juicefs/host-path"},
	{"bucket out of sight", func(c *cluster) { c.key("storage", "file"); c.key("bucket", "/data/bucket") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a directory as bucket that the client cannot see (data[bucket]); give an absolute path, and the directory in the PersistentVolume's attribute juicefs/host-path"},
	{"no name", func(c *cluster) { delete(c.secret().Data, "name") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has no name (data[name]); add the file system's name as it was formatted"},
	{"name too short", func(c *cluster) { c.key("name", "ab") }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has a name that no JuiceFS file system can have (data[name]); use 3 to 63 lower-case letters, digits and dashes, with no dash at either end"},
	{"envs are a list", func(c *cluster) { c.key("envs", `["hunter2"]`) }, ReasonSecretInvalid, false,
		`Secret kube-system/jfs has envs that are not a map of strings (data[envs]); write them as JSON or YAML, as in {"AWS_REGION": "eu-central-1"}`},
	{"envs hold a list", func(c *cluster) { c.key("envs", `{"A": ["hunter2"]}`) }, ReasonSecretInvalid, false,
		`Secret kube-system/jfs has envs that are not a map of strings (data[envs]); write them as JSON or YAML, as in {"AWS_REGION": "eu-central-1"}`},
	{"secret too large", func(c *cluster) { c.key("x", strings.Repeat("x", secretLimit)) }, ReasonSecretInvalid, false,
		"Secret kube-system/jfs has 196750 bytes, more than the 196608 that a volume may have (data); remove the keys that the volume does not need"},
	{"unknown client", func(c *cluster) { c.attrs(attrClient, "nfs") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data names the unknown client "nfs" (spec.csi.volumeAttributes[sidemount.io/client]); use one of juicefs, passthrough`},
	{"unknown attribute, near", func(c *cluster) { c.attrs("juicefs/mount-cpu-limt", "1") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has the unknown attribute "juicefs/mount-cpu-limt" (spec.csi.volumeAttributes[juicefs/mount-cpu-limt]); remove it, or write juicefs/mount-cpu-limit if you mean that`},
	{"unknown attribute, near by case", func(c *cluster) { c.attrs("mountoptions", "ro") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has the unknown attribute "mountoptions" (spec.csi.volumeAttributes[mountoptions]); remove it, or write mountOptions if you mean that`},
	{"unknown attribute", func(c *cluster) { c.attrs("sidemount.io/zzzzzzzzzzzzzzzzzzz", "ro") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has the unknown attribute "sidemount.io/zzzzzzzzzzzzzzzzzzz" (spec.csi.volumeAttributes[sidemount.io/zzzzzzzzzzzzzzzzzzz]); remove it`},
	{"bad quantity", func(c *cluster) { c.attrs(attrMemoryLimit, "2 GB") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "2 GB" as a quantity (spec.csi.volumeAttributes[juicefs/mount-memory-limit]); write it as in "512Mi"; "0" removes a limit`},
	{"negative quantity", func(c *cluster) { c.attrs(attrCPURequest, "-1") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "-1" as a quantity (spec.csi.volumeAttributes[juicefs/mount-cpu-request]); write it as in "500m"; "0" removes a limit`},
	{"bad quantity in an annotation", func(c *cluster) { c.claim().Annotations = map[string]string{attrCPULimit: "two"} }, ReasonAttributeInvalid, false,
		`PersistentVolumeClaim shop/data has "two" as a quantity (metadata.annotations[juicefs/mount-cpu-limit]); write it as in "500m"; "0" removes a limit`},
	{"request over limit", func(c *cluster) { c.attrs(attrCPURequest, "3", attrCPULimit, "1500m") }, ReasonAttributeInvalid, false,
		"PersistentVolume pv-data asks for more cpu than its limit allows: 3 of 1500m (spec.csi.volumeAttributes[juicefs/mount-cpu-request]); raise juicefs/mount-cpu-limit or lower juicefs/mount-cpu-request"},
	{"labels are a list", func(c *cluster) { c.attrs(attrMountLabels, "- a") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a value that is not a map of strings (spec.csi.volumeAttributes[juicefs/mount-labels]); write it as JSON or YAML, as in {"team": "data"}`},
	{"bad delay", func(c *cluster) { c.attrs(attrDeleteDelay, "5 minutes") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "5 minutes" as a duration (spec.csi.volumeAttributes[juicefs/mount-delete-delay]); write it as in "30s", "5m" or "1h"`},
	{"bad image", func(c *cluster) { c.attrs(attrImage, "an image") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "an image" as an image (spec.csi.volumeAttributes[sidemount.io/image]); write it as registry/name:tag`},
	{"bad user", func(c *cluster) { c.attrs(attrUser, "nobody") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "nobody" as a numeric id (spec.csi.volumeAttributes[sidemount.io/run-as-user]); write a number from 0 to 2147483647`},
	{"bad group", func(c *cluster) { c.attrs(attrGroup, "4294967295") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "4294967295" as a numeric id (spec.csi.volumeAttributes[sidemount.io/run-as-group]); write a number from 0 to 2147483647`},
	{"host path relative", func(c *cluster) { c.attrs(attrHostPath, "/a,b") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a host directory that is not an absolute path (spec.csi.volumeAttributes[juicefs/host-path]); write absolute paths, separated by commas, as in "/etc/ssl/certs,/data"`},
	{"host path upwards", func(c *cluster) { c.attrs(attrHostPath, "/a/../../etc") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a host directory that has ".." in its path (spec.csi.volumeAttributes[juicefs/host-path]); write absolute paths, separated by commas, as in "/etc/ssl/certs,/data"`},
	{"host path is the host", func(c *cluster) { c.attrs(attrHostPath, "//./") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a host directory that is the root of the host (spec.csi.volumeAttributes[juicefs/host-path]); write absolute paths, separated by commas, as in "/etc/ssl/certs,/data"`},
	{"host path over the agent", func(c *cluster) { c.attrs(attrHostPath, "/run") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a host directory that lies over or under /run/sidemount of the sidecar (spec.csi.volumeAttributes[juicefs/host-path]); write absolute paths, separated by commas, as in "/etc/ssl/certs,/data"`},
	{"mount option with a line break", func(c *cluster) { c.pv().Spec.MountOptions = []string{"a\nb"} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has mount options that have a line break or another control character in them (spec.mountOptions); write them as in "cache-size=1024,writeback"`},
	{"mount options with two commas", func(c *cluster) { c.attrs(attrMountOptions, "a=1,,b") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has mount options that have a comma with nothing before or after it (spec.csi.volumeAttributes[mountOptions]); write them as in "cache-size=1024,writeback"`},
	{"mount option empty", func(c *cluster) { c.pv().Spec.MountOptions = []string{"a", " "} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has mount options that have an empty entry (spec.mountOptions); write them as in "cache-size=1024,writeback"`},
	{"mount option without key", func(c *cluster) { c.pv().Spec.MountOptions = []string{"=3"} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has mount options that have a value without a key (spec.mountOptions); write them as in "cache-size=1024,writeback"`},
	{"mount option as flag", func(c *cluster) { c.pv().Spec.MountOptions = []string{"--writeback"} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has mount options that have "--writeback" as the key of an option (spec.mountOptions); write them as in "cache-size=1024,writeback"`},
	{"subdir upwards", func(c *cluster) { c.pv().Spec.MountOptions = []string{"subdir=a/../../b"} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has ".." in its subdirectory (subdir or subPath); write the path from the root of the file system`},
	{"subPath upwards", func(c *cluster) { c.attrs(attrSubPath, "..") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has ".." in its subdirectory (subdir or subPath); write the path from the root of the file system`},
	{"subPath with an option", func(c *cluster) { c.attrs(attrSubPath, "a,writeback") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a comma or a control character in its subdirectory (spec.csi.volumeAttributes[subPath]); rename the directory`},
	{"cache medium", func(c *cluster) { c.attrs(attrCacheEmptyDir, "SSD:1Gi") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "SSD" as the medium of an emptyDir (spec.csi.volumeAttributes[juicefs/mount-cache-emptydir]); write it as medium:size, as in "Memory:1Gi" or ":20Gi"`},
	{"cache size", func(c *cluster) { c.attrs(attrCacheEmptyDir, "Memory:much") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has "much" as the size of an emptyDir (spec.csi.volumeAttributes[juicefs/mount-cache-emptydir]); write it as medium:size, as in "Memory:1Gi" or ":20Gi"`},
	{"cache directory relative", func(c *cluster) { c.pv().Spec.MountOptions = []string{"cache-dir=memory:cache"} }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a cache directory that is not an absolute path (cache-dir); write absolute paths, separated by colons, or "memory"`},
	{"buffer over memory", func(c *cluster) { c.attrs(attrMemoryLimit, "1Gi", attrMountOptions, "buffer-size=2048") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a buffer-size of 2048 MiB, more than the sidecar's memory limit of 1Gi (buffer-size); lower it, or raise juicefs/mount-memory-limit`},
	{"path without passthrough", func(c *cluster) { c.attrs(attrPath, "/srv") }, ReasonAttributeInvalid, false,
		"PersistentVolume pv-data names a directory of the host for client juicefs (spec.csi.volumeAttributes[path]); set sidemount.io/client: passthrough, or remove path"},
	{"passthrough without path", func(c *cluster) { c.attrs(attrClient, "passthrough") }, ReasonAttributeInvalid, false,
		"PersistentVolume pv-data names no directory for client passthrough (spec.csi.volumeAttributes[path]); set path to an absolute path of the host"},
	{"passthrough of two", func(c *cluster) { c.attrs(attrClient, "passthrough", attrPath, "/a,/b") }, ReasonAttributeInvalid, false,
		"PersistentVolume pv-data has a directory with a comma in its path (spec.csi.volumeAttributes[path]); name one directory"},
	{"passthrough upwards", func(c *cluster) { c.attrs(attrClient, "passthrough", attrPath, "/a/..") }, ReasonAttributeInvalid, false,
		`PersistentVolume pv-data has a directory that has ".." in its path (spec.csi.volumeAttributes[path]); write an absolute path of the host`},
	{"passthrough with subPath", func(c *cluster) { c.attrs(attrClient, "passthrough", attrPath, "/a", attrSubPath, "b") }, ReasonAttributeInvalid, false,
		"PersistentVolume pv-data sets subPath, which client passthrough does not know (spec.csi.volumeAttributes[subPath]); remove it"},
	{"raw block in the pod", func(c *cluster) {
		c.pod.Spec.Containers[0].VolumeMounts = nil
		c.pod.Spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/x"}}
	}, ReasonPodUnsupported, false,
		"Pod shop/web asks for a raw block device, and a FUSE volume is a file system (spec.containers[app].volumeDevices[data]); name the volume in volumeMounts instead of volumeDevices"},
	{"user namespace", func(c *cluster) { c.pod.Spec.HostUsers = ptr(false) }, ReasonPodUnsupported, false,
		"Pod shop/web asks for a user namespace, in which its sidecar would have an unknown user id (spec.hostUsers); remove hostUsers: false, or the volume data"},
	{"ephemeral claim missing", func(c *cluster) {
		c.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
	}, ReasonClaimNotFound, true,
		"PersistentVolumeClaim shop/web-data is not found yet; Kubernetes makes it for the ephemeral volume data of Pod shop/web; wait, and look at the events of the pod if it takes long"},
	{"ephemeral claim of somebody else", func(c *cluster) {
		c.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
		c.claims["shop/web-data"] = c.claim().DeepCopy()
		c.claims["shop/web-data"].Name = "web-data"
	}, ReasonClaimInvalid, false,
		"PersistentVolumeClaim shop/web-data has the name of the ephemeral volume data of Pod shop/web and does not belong to that pod (metadata.ownerReferences); delete or rename the claim, or rename the pod or its volume"},
	{"inline of another driver", func(c *cluster) { c.inline(nil); c.pod.Spec.Volumes[0].CSI.Driver = "secrets-store.csi.k8s.io" }, ReasonForeignDriver, false,
		"Pod shop/web has the inline volume data of driver secrets-store.csi.k8s.io; this node serves volumes of csi.sidemount.io only (spec.volumes[data].csi.driver); schedule the pod on an ordinary node, or use a volume of csi.sidemount.io"},
	{"inline without secret", func(c *cluster) { c.inline(nil); c.pod.Spec.Volumes[0].CSI.NodePublishSecretRef = nil }, ReasonSecretNotFound, false,
		"Pod shop/web names no Secret for the inline volume data, and a juicefs volume cannot be mounted without one (spec.volumes[data].csi.nodePublishSecretRef); name a Secret of namespace shop there"},
	{"inline with a missing secret", func(c *cluster) { c.inline(nil) }, ReasonSecretNotFound, false,
		"Secret shop/mine is not found, and Pod shop/web names it in spec.volumes[data].csi.nodePublishSecretRef; create it in namespace shop, or correct the reference"},
	{"inline passthrough", func(c *cluster) { c.inline(map[string]string{attrClient: "passthrough", attrPath: "/etc"}) }, ReasonAttributeInvalid, false,
		"Pod shop/web asks for client passthrough in an inline volume, which could show any directory of the host (spec.volumes[data].csi.volumeAttributes[sidemount.io/client]); use a PersistentVolume, which an administrator makes"},
	{"inline with a host path", func(c *cluster) {
		c.inline(map[string]string{attrHostPath: "/etc"})
		c.secrets["shop/mine"] = c.secret()
	}, ReasonAttributeInvalid, false,
		"Pod shop/web sets juicefs/host-path in an inline volume (spec.volumes[data].csi.volumeAttributes[juicefs/host-path]); use a PersistentVolume, which an administrator makes"},
	{"claim forbidden", func(c *cluster) {
		c.fail = func(resource, name string) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name, errors.New("no relationship found"))
		}
	}, ReasonUnavailable, true,
		"PersistentVolumeClaim shop/data may not be read; wait a moment if the pod has just been scheduled; otherwise allow the node, or the driver's service account, to get it"},
	{"volume unreadable", func(c *cluster) { c.failOn("persistentvolumes") }, ReasonUnavailable, true,
		"PersistentVolume pv-data cannot be read: the server is silent; wait until the API server answers"},
	{"secret unreadable", func(c *cluster) { c.failOn("secrets") }, ReasonUnavailable, true,
		"Secret kube-system/jfs cannot be read: the server is silent; wait until the API server answers"},
}

func (c *cluster) failOn(resource string) {
	c.fail = func(r, _ string) error {
		if r == resource {
			return errors.New("the server is silent")
		}
		return nil
	}
}

func TestRefusals(t *testing.T) {
	base := readFile(t, "testdata/static.in.yaml")
	for _, tc := range refusals {
		t.Run(tc.name, func(t *testing.T) {
			c := load(t, base)
			tc.change(c)
			_, err := resolver(t, c).Resolve(t.Context(), c.pod)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Error() != tc.want {
				t.Errorf("\ngot  %s\nwant %s", e, tc.want)
			}
			if e.Reason != tc.reason || e.Transient != tc.transient {
				t.Errorf("got %s, transient %t; want %s, transient %t", e.Reason, e.Transient, tc.reason, tc.transient)
			}
			if errors.Is(err, mount.ErrUnavailable) != tc.transient || errors.Is(err, mount.ErrConfig) == tc.transient {
				t.Error("the error is of the wrong class")
			}
			noSecrets(t, c, []byte(e.Error()))
		})
	}
}

func resolver(t testing.TB, c *cluster) *Resolver {
	t.Helper()
	r, err := NewResolver(Options{Objects: c})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResolveKeepsTheOrderOfVolumes(t *testing.T) {
	c := load(t, readFile(t, "testdata/ten-volumes.in.yaml"))
	mounts, err := resolver(t, c).Resolve(t.Context(), c.pod)
	if err != nil || len(mounts) != 10 {
		t.Fatalf("%d mounts, error %v", len(mounts), err)
	}
	for i, m := range mounts {
		if v := c.pod.Spec.Volumes[i]; m.Volume.Name != v.Name || m.Claim != v.PersistentVolumeClaim.ClaimName {
			t.Errorf("mount %d is %s of claim %s, want %s", i, m.Volume.Name, m.Claim, v.Name)
		}
	}
}

func TestResolveReportsTheFirstBadVolume(t *testing.T) {
	c := load(t, readFile(t, "testdata/ten-volumes.in.yaml"))
	delete(c.volumes, "pv3")
	delete(c.claims, "shop/c7")
	_, err := resolver(t, c).Resolve(t.Context(), c.pod)
	var e *Error
	if !errors.As(err, &e) || e.Object != "PersistentVolume pv3" {
		t.Errorf("got %v", err)
	}
}

func TestResolvePassesTheCauseOn(t *testing.T) {
	c := load(t, readFile(t, "testdata/static.in.yaml"))
	c.fail = func(string, string) error { return context.DeadlineExceeded }
	if _, err := resolver(t, c).Resolve(t.Context(), c.pod); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestSecretReachesTheClientTrimmed(t *testing.T) {
	c := load(t, readFile(t, "testdata/static.in.yaml"))
	c.key("metaurl", "redis.storage:6379/1\n")
	c.key("access-key", "AKIA\n")
	c.key("envs", "{A: b, PORT: 80, FAST: true}")
	c.key("encrypt_rsa_key", "-----BEGIN-----\nx\n")
	mounts, err := resolver(t, c).Resolve(t.Context(), c.pod)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"metaurl": "redis://redis.storage:6379/1", "access-key": "AKIA", "encrypt_rsa_key": "-----BEGIN-----\nx\n", "name": "fs-of-jfs",
	} {
		if got := mounts[0].Volume.Secret[key]; got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if got := string(c.secret().Data["metaurl"]); got != "redis.storage:6379/1\n" {
		t.Errorf("the Secret in the cache was changed to %q", got)
	}
}

func TestMetaURLForms(t *testing.T) {
	c := load(t, readFile(t, "testdata/static.in.yaml"))
	c.attrs(attrHostPath, "/data")
	for in, want := range map[string]string{
		"localhost":                                "redis://localhost",
		"redis://:p%40ss@a:1,b:2,c:3/0":            "redis://:p%40ss@a:1,b:2,c:3/0",
		"rediss://h/1?insecure-skip-verify=true":   "rediss://h/1?insecure-skip-verify=true",
		"mysql://u:p/a:s@s@(h:3306)/db":            "mysql://u:p/a:s@s@(h:3306)/db",
		"postgres://u@h:5432/db?sslmode=disable":   "postgres://u@h:5432/db?sslmode=disable",
		"sqlite3:///data/meta.db?cache=shared":     "sqlite3:///data/meta.db?cache=shared",
		"sqlite3://file:/data/meta.db?mode=rwc":    "sqlite3://file:/data/meta.db?mode=rwc",
		"sqlite3:///tmp/try.db":                    "sqlite3:///tmp/try.db",
		"tikv://pd1:2379,pd2:2379/myjfs?ca=/x.pem": "tikv://pd1:2379,pd2:2379/myjfs?ca=/x.pem",
	} {
		c.key("metaurl", in)
		mounts, err := resolver(t, c).Resolve(t.Context(), c.pod)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := mounts[0].Volume.Secret["metaurl"]; got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func TestResources(t *testing.T) {
	const cpuL, cpuR, memL, memR = attrCPULimit, attrCPURequest, attrMemoryLimit, attrMemoryRequest
	for _, tc := range []struct {
		name                                   string
		attributes, annotations                map[string]string
		cpuRequest, cpuLimit, memReq, memLimit string
	}{
		{"defaults", nil, nil, "1", "2", "1Gi", "5Gi"},
		{"zero limit means none", map[string]string{cpuL: "0", memL: "0"}, nil, "1", "", "1Gi", ""},
		{"zero request stays", map[string]string{cpuR: "0", memR: "0"}, nil, "0", "2", "0", "5Gi"},
		{"low limit lowers the default request", map[string]string{cpuL: "500m", memL: "300Mi"}, nil, "500m", "500m", "300Mi", "300Mi"},
		{"high request raises the default limit", map[string]string{cpuR: "4", memR: "8Gi"}, nil, "4", "4", "8Gi", "8Gi"},
		{"annotation wins", map[string]string{cpuL: "3", memL: "2Gi"}, map[string]string{cpuL: "4", "other": "x"}, "1", "4", "1Gi", "2Gi"},
		{"empty means default", map[string]string{cpuL: "", memR: ""}, nil, "1", "2", "1Gi", "5Gi"},
		{"empty annotation means default", map[string]string{cpuL: "3"}, map[string]string{cpuL: ""}, "1", "2", "1Gi", "5Gi"},
		{"no limit allows any request", map[string]string{cpuL: "0", cpuR: "64"}, nil, "64", "", "1Gi", "5Gi"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Source{Attributes: tc.attributes, Annotations: tc.annotations}.resources()
			if err != nil {
				t.Fatal(err)
			}
			same(t, "cpu request", got.Requests, corev1.ResourceCPU, tc.cpuRequest)
			same(t, "cpu limit", got.Limits, corev1.ResourceCPU, tc.cpuLimit)
			same(t, "memory request", got.Requests, corev1.ResourceMemory, tc.memReq)
			same(t, "memory limit", got.Limits, corev1.ResourceMemory, tc.memLimit)
		})
	}
}

func same(t *testing.T, what string, list corev1.ResourceList, name corev1.ResourceName, want string) {
	t.Helper()
	q, ok := list[name]
	if ok != (want != "") {
		t.Errorf("%s: set %t", what, ok)
		return
	}
	if ok && q.Cmp(resource.MustParse(want)) != 0 {
		t.Errorf("%s: got %s, want %s", what, q.String(), want)
	}
}

func TestPodSettings(t *testing.T) {
	c := load(t, readFile(t, "testdata/juicefs-driver.in.yaml"))
	r, err := NewResolver(Options{Objects: c, Drivers: []string{"csi.juicefs.com"}})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := r.Resolve(t.Context(), c.pod)
	if err != nil {
		t.Fatal(err)
	}
	p := mounts[0].Pod
	if p.Labels["team"] != "data" || p.Annotations["note"] != "x" || p.ServiceAccount != "juicefs-mount" || p.DeleteDelay != 5*time.Minute || !p.CleanCache {
		t.Errorf("got %+v", p)
	}
}

func TestNewResolver(t *testing.T) {
	if _, err := NewResolver(Options{}); err == nil {
		t.Error("no objects: no error")
	}
	if _, err := NewResolver(Options{Objects: &cluster{}, Images: map[mount.ClientKind]string{"nfs": "x"}}); err == nil {
		t.Error("image of an unknown client: no error")
	}
	r, err := NewResolver(Options{Objects: &cluster{}, Images: map[mount.ClientKind]string{mount.JuiceFS: "local/jfs:1", mount.Passthrough: ""}})
	if err != nil {
		t.Fatal(err)
	}
	if r.images[mount.JuiceFS] != "local/jfs:1" || r.images[mount.Passthrough] != Clients[mount.Passthrough].Image {
		t.Errorf("got images %v", r.images)
	}
}

func TestUpstreamImage(t *testing.T) {
	for image, want := range map[string]bool{
		"juicedata/mount:ce-v1.4.1":                    true,
		"docker.io/juicedata/mount":                    true,
		"registry:5000/juicedata/mount@sha256:ab":      true,
		"mirror.example.com/hub/mount:ee-5.1.2-abc":    true,
		"juicedata/juicefs-fuse:v1.0.0-4.8.0":          true,
		"ghcr.io/sidemount/juicefs-client:v0.1.0":      false,
		"registry:5000/mount":                          false,
		"registry.example.com/notjuicedata/mount:v1.0": false,
	} {
		if got := upstreamImage(image); got != want {
			t.Errorf("%s: got %t", image, got)
		}
	}
}
