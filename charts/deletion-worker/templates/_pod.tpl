{{/* What the worker's pod and that of `helm test` have in common. */}}
{{- define "deletion-worker.pod" -}}
serviceAccountName: {{ include "deletion-worker.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "deletion-worker.imagePullSecrets" . }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Not empty if `helm test` has somebody to ask: behind a Service that has pods. */}}
{{- define "deletion-worker.isTestable" -}}
{{- if and .Values.service.enabled (not (and .Values.keda.enabled (eq (int .Values.keda.minReplicaCount) 0))) }}true{{ end -}}
{{- end -}}

{{/* What their containers have in common. */}}
{{- define "deletion-worker.container" -}}
image: {{ include "deletion-worker.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A probe. Takes a list: the path that is asked, and how it is asked. */}}
{{- define "deletion-worker.probe" -}}
{{- merge (dict) (index . 1) (dict "httpGet" (dict "path" (index . 0) "port" "metrics")) | toYaml -}}
{{- end -}}

{{/*
Each Secret is a volume of its own, mounted as a folder: a file mounted alone (subPath) would never change.
Only what the worker reads is in it, under names of the chart's.
*/}}
{{- define "deletion-worker.secretVolumes" -}}
{{- $own := include "deletion-worker.fullname" . -}}
{{- with .Values.amqp.existingSecret }}
{{ include "deletion-worker.secretVolume" (list "amqp" . (dict "urls" $.Values.amqp.existingSecretKey)) }}
{{- else }}
{{ include "deletion-worker.secretVolume" (list "amqp" $own (dict "urls" "urls")) }}
{{- end }}
{{- if .Values.token.existingSecret }}
{{ include "deletion-worker.secretVolume" (list "token" .Values.token.existingSecret (dict "token" .Values.token.existingSecretKey)) }}
{{- else if .Values.token.value }}
{{ include "deletion-worker.secretVolume" (list "token" $own (dict "token" "token")) }}
{{- end }}
{{- with .Values.amqp.tls.ca }}
{{- if .existingSecret }}
{{ include "deletion-worker.secretVolume" (list "ca" .existingSecret (dict "ca.crt" .existingSecretKey)) }}
{{- end }}
{{- end }}
{{- with .Values.amqp.tls.client }}
{{- if .existingSecret }}
{{ include "deletion-worker.secretVolume" (list "client" .existingSecret (dict "tls.crt" .certificateKey "tls.key" .privateKeyKey)) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes a list: the volume's name, the Secret's, and a dict of file names to the Secret's keys. */}}
{{- define "deletion-worker.secretVolume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 | quote }}
    defaultMode: 0440
    items:
      {{- range $path, $key := index . 2 }}
      - key: {{ $key | quote }}
        path: {{ $path }}
      {{- end }}
{{- end -}}

{{- define "deletion-worker.volumes" -}}
- name: config
  configMap:
    name: {{ include "deletion-worker.fullname" . | quote }}
{{ include "deletion-worker.secretVolumes" . | trim }}
{{- with .Values.extraVolumes }}
{{ include "deletion-worker.tpl" (dict "root" $ "value" .) }}
{{- end }}
{{- end -}}

{{- define "deletion-worker.volumeMounts" -}}
- name: config
  mountPath: /etc/deletion-worker/config
  readOnly: true
{{- range include "deletion-worker.secretVolumes" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: /etc/deletion-worker/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ include "deletion-worker.tpl" (dict "root" $ "value" .) }}
{{- end }}
{{- end -}}
