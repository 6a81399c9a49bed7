{{- define "deletion-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects, cut so that every suffix still fits into 63 characters. */}}
{{- define "deletion-worker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the worker's pods: never changes in the life of a release. */}}
{{- define "deletion-worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "deletion-worker.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end -}}

{{/* What selects the pod of `helm test`, which isn't a worker. */}}
{{- define "deletion-worker.testLabels" -}}
{{ include "deletion-worker.selectorLabels" . | replace "component: worker" "component: test" }}
{{- end -}}

{{/* Labels that say where an object comes from; what selects it stands beside them. */}}
{{- define "deletion-worker.originLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Chart.AppVersion }}
app.kubernetes.io/version: {{ . | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ include "deletion-worker.name" . | quote }}
{{- end -}}

{{- define "deletion-worker.labels" -}}
{{- $own := merge (include "deletion-worker.selectorLabels" . | fromYaml) (include "deletion-worker.originLabels" . | fromYaml) -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{/*
The metadata of an object of the chart.
Takes a dict: `root`, and what is optional: `name`, if it isn't the full name, `labels`, `annotations`.
*/}}
{{- define "deletion-worker.metadata" -}}
name: {{ default (include "deletion-worker.fullname" .root) .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- merge (include "deletion-worker.labels" .root | fromYaml) (default dict .labels) | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "deletion-worker.serviceAccountName" -}}
{{- $own := ternary (include "deletion-worker.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{- define "deletion-worker.image" -}}
{{- $global := default dict .Values.global -}}
{{- $registry := default .Values.image.registry $global.imageRegistry -}}
{{- $version := printf ":%s" (default .Chart.AppVersion .Values.image.tag) -}}
{{- with .Values.image.digest -}}
{{- $version = printf "@%s" . -}}
{{- end -}}
{{- with $registry -}}{{ . }}/{{- end -}}
{{ .Values.image.repository }}{{ $version }}
{{- end -}}

{{/* The Secrets that the image is pulled with, as a list of objects or nothing. */}}
{{- define "deletion-worker.imagePullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.image.pullSecrets (default list (default dict .Values.global).imagePullSecrets) -}}
{{- $names = append $names (dict "name" (ternary (get (ternary . dict (kindIs "map" .)) "name") . (kindIs "map" .))) -}}
{{- end -}}
{{- with $names | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Renders a value that may hold templates. Takes a dict: `root`, `value`. */}}
{{- define "deletion-worker.tpl" -}}
{{- tpl (ternary .value (toYaml .value) (kindIs "string" .value)) .root -}}
{{- end -}}
