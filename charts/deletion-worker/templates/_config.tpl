{{/*
The worker's configuration as TOML: what `config` says, and what the chart itself knows.
JSON's strings, numbers, booleans and lists of them are TOML's too.
*/}}
{{- define "deletion-worker.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config.amqp "urls_file" "/etc/deletion-worker/amqp/urls" -}}
{{- if include "deletion-worker.hasToken" . -}}
{{- $_ := set $config.endpoint "token_file" "/etc/deletion-worker/token/token" -}}
{{- end -}}
{{- $_ := set $config.log "format" "json" -}}
{{- $tls := dict -}}
{{- if .Values.amqp.tls.ca.existingSecret -}}
{{- $_ := set $tls "ca_file" "/etc/deletion-worker/ca/ca.crt" -}}
{{- end -}}
{{- if .Values.amqp.tls.client.existingSecret -}}
{{- $_ := set $tls "cert_file" "/etc/deletion-worker/client/tls.crt" -}}
{{- $_ := set $tls "key_file" "/etc/deletion-worker/client/tls.key" -}}
{{- end -}}
{{- with $tls -}}
{{- $_ := set $config "amqp.tls" . -}}
{{- end -}}
{{- range $section, $keys := $config }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end -}}

{{/* Not empty if the worker gets a token. */}}
{{- define "deletion-worker.hasToken" -}}
{{- if or .Values.token.existingSecret .Values.token.value }}true{{ end -}}
{{- end -}}

{{/* A duration as the worker reads it, in milliseconds. */}}
{{- define "deletion-worker.milliseconds" -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+\\s*[a-z]+" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $factor := 0 -}}
{{- if has $unit (list "ms" "msec" "millis") -}}
{{- $factor = 1 -}}
{{- else if hasPrefix "s" $unit -}}
{{- $factor = 1000 -}}
{{- else if hasPrefix "m" $unit -}}
{{- $factor = 60000 -}}
{{- else if hasPrefix "h" $unit -}}
{{- $factor = 3600000 -}}
{{- end -}}
{{- $total = addf $total (mulf (regexFind "^[0-9.]+" . | float64) $factor) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* The least terminationGracePeriodSeconds: the worker's own grace, and time to give the rest back and close. */}}
{{- define "deletion-worker.graceSeconds" -}}
{{- $milliseconds := include "deletion-worker.milliseconds" .Values.config.shutdown.grace | float64 -}}
{{- add (divf $milliseconds 1000 | ceil | int) 15 -}}
{{- end -}}

{{/* IDs that a call may hold. */}}
{{- define "deletion-worker.maxIds" -}}
{{- default (include "deletion-worker.maxIdsOfApi" .) .Values.config.batch.max_ids -}}
{{- end -}}

{{- define "deletion-worker.maxIdsOfApi" -}}
{{- ternary 100 500 (eq .Values.config.endpoint.api "v1.2") -}}
{{- end -}}
