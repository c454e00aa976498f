{{/* The name that all objects begin with. */}}
{{- define "sidemount.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Labels of every object: (list $ "component"). */}}
{{- define "sidemount.labels" -}}
{{- $ := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
{{ include "sidemount.selector" . }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels that select the pods of one component. They never change, because a Deployment's selector cannot. */}}
{{- define "sidemount.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* An image's reference: (list $ .Values.images.X). */}}
{{- define "sidemount.image" -}}
{{- $ := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Image and pull policy of a container: (list $ .Values.images.X). */}}
{{- define "sidemount.container.image" -}}
image: {{ include "sidemount.image" . | quote }}
imagePullPolicy: {{ (index . 1).pullPolicy }}
{{- end -}}

{{- define "sidemount.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A pod that needs no right on its host. The numeric user owns the sockets that its containers share. */}}
{{- define "sidemount.unprivileged.pod" -}}
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
fsGroup: 65534
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sidemount.unprivileged.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Terms that keep a pod off virtual nodes, ours and others' (virtual-kubelet's own label, EKS Fargate, TKE's super nodes), and off Windows. */}}
{{- define "sidemount.ordinaryNodes" -}}
- matchExpressions:
    - {key: type, operator: NotIn, values: [virtual-kubelet]}
    - {key: sidemount.io/serverless, operator: DoesNotExist}
    - {key: kubernetes.io/os, operator: In, values: [linux]}
    - {key: eks.amazonaws.com/compute-type, operator: NotIn, values: [fargate]}
    - {key: node.kubernetes.io/instance-type, operator: NotIn, values: [eklet]}
{{- end -}}

{{/* The socket on which the kubelet finds the driver; its path is the same in the pod and on the host. */}}
{{- define "sidemount.nodeSocket" -}}
{{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}/csi.sock
{{- end -}}

{{- define "sidemount.storageClassSecret" -}}
{{- $ := index . 0 -}}{{- $class := index . 1 -}}
{{- if $class.secret.data -}}
{{ $class.secret.name | default (printf "%s-%s" (include "sidemount.fullname" $) $class.name) }}
{{- else -}}
{{ $class.secret.name }}
{{- end -}}
{{- end -}}

{{- define "sidemount.storageClassNamespace" -}}
{{- $ := index . 0 -}}{{- $class := index . 1 -}}
{{ $class.secret.namespace | default $.Release.Namespace }}
{{- end -}}
