{{/*
What the schema can't say, as it takes more than one value: collects every mistake, and fails once with all of them.
*/}}
{{- define "deletion-worker.validate" -}}
{{- $errors := concat
  (include "deletion-worker.validateNames" . | fromJsonArray)
  (include "deletion-worker.validateSecrets" . | fromJsonArray)
  (include "deletion-worker.validateSizes" . | fromJsonArray)
  (include "deletion-worker.validateSpans" . | fromJsonArray)
  (include "deletion-worker.validateRollout" . | fromJsonArray)
  (include "deletion-worker.validateMonitors" . | fromJsonArray)
  (include "deletion-worker.validateKeda" . | fromJsonArray)
-}}
{{- with $errors -}}
{{- printf "\n\nThe values can't be installed:\n  * %s\n" (join "\n  * " .) | fail -}}
{{- end -}}
{{- end -}}

{{- define "deletion-worker.validateNames" -}}
{{- $errors := list -}}
{{- $name := include "deletion-worker.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $errors = append $errors (printf "fullnameOverride: needed, as %q can't be the name of a Service: it begins with a letter, and has small letters, digits and dashes" $name) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list
  "DELETION_WORKER_CONFIG"
  "DELETION_WORKER__ADMIN__LISTEN"
  "DELETION_WORKER__AMQP__URLS"
  "DELETION_WORKER__AMQP__URLS_FILE"
  "DELETION_WORKER__ENDPOINT__TOKEN"
  "DELETION_WORKER__ENDPOINT__TOKEN_FILE"
  "DELETION_WORKER__SHUTDOWN__GRACE"
) -}}
{{- $errors = append $errors (printf "extraEnv: %s would go before what the chart works out; use the chart's own value for it" .name) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateSecrets" -}}
{{- $errors := list -}}
{{- if and .Values.amqp.existingSecret .Values.amqp.urls -}}
{{- $errors = append $errors "amqp: both existingSecret and urls are set" -}}
{{- else if not (or .Values.amqp.existingSecret .Values.amqp.urls) -}}
{{- $errors = append $errors "amqp.existingSecret: required, the Secret that holds the broker's URL; for a trial amqp.urls" -}}
{{- end -}}
{{- if and .Values.token.existingSecret .Values.token.value -}}
{{- $errors = append $errors "token: both existingSecret and value are set" -}}
{{- else if not (or (include "deletion-worker.hasToken" .) .Values.config.worker.dry_run) -}}
{{- $errors = append $errors "token.existingSecret: required, the Secret that holds the endpoint's token; for a trial token.value, or config.worker.dry_run=true" -}}
{{- end -}}
{{- /* Here and not in the schema, which would show the value, with a password perhaps. */ -}}
{{- range $index, $url := .Values.amqp.urls -}}
{{- if not (regexMatch "^amqps?://[^\\s,]+$" $url) -}}
{{- $errors = append $errors (printf "amqp.urls: item %d is not like amqp://user:password@host:port/vhost, percent-encoded" $index) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^([!-~]([ -~]*[!-~])?)?$" .Values.token.value) -}}
{{- $errors = append $errors "token.value: begins or ends with white space, or has a character that is not visible ASCII" -}}
{{- end -}}
{{- range $key, $url := dict "config.endpoint.url" .Values.config.endpoint.url "keda.host" (default nil .Values.keda.host) -}}
{{- if and (kindIs "string" $url) (not (regexMatch "^https?://[^/?#@\\s]+(/[^?#\\s]*)?$" (toString $url))) -}}
{{- $errors = append $errors (printf "%s: is not like https://host:port/path, without user, password and query" $key) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateSizes" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- $limit := include "deletion-worker.maxIdsOfApi" . | int -}}
{{- $ids := include "deletion-worker.maxIds" . | int -}}
{{- if gt $ids $limit -}}
{{- $errors = append $errors (printf "config.batch.max_ids: %d, but %s of the API takes at most %d IDs a call" $ids $config.endpoint.api $limit) -}}
{{- end -}}
{{- if not (kindIs "string" $config.amqp.prefetch) -}}
{{- if lt (int $config.amqp.prefetch) $ids -}}
{{- $errors = append $errors (printf "config.amqp.prefetch: %d is too small for one full batch, batch.max_ids is %d" (int $config.amqp.prefetch) $ids) -}}
{{- end -}}
{{- end -}}
{{- range list (list "amqp" "queue") (list "amqp" "exchange") (list "amqp" "routing_key") (list "dead_letter" "queue") (list "dead_letter" "exchange") -}}
{{- $name := index $config (index . 0) (index . 1) -}}
{{- if gt (len (default "" $name)) 255 -}}
{{- $errors = append $errors (printf "config.%s: has %d bytes, more than 255" (join "." .) (len $name)) -}}
{{- end -}}
{{- end -}}
{{- if eq $config.dead_letter.queue $config.amqp.queue -}}
{{- $errors = append $errors "config.dead_letter.queue: the same as amqp.queue, dead letters would be consumed again" -}}
{{- end -}}
{{- if eq $config.dead_letter.exchange $config.amqp.exchange -}}
{{- $errors = append $errors "config.dead_letter.exchange: the same as amqp.exchange, dead letters need an exchange of their own" -}}
{{- end -}}
{{- if and $config.endpoint.namespace (eq $config.endpoint.api "v1.0") -}}
{{- $errors = append $errors "config.endpoint.namespace: v1.0 has no namespaces, videos of any would be deleted" -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateSpans" -}}
{{- $errors := list -}}
{{- $spans := dict -}}
{{- range list
  (list "amqp" "heartbeat" 1000 3600000 1000)
  (list "batch" "linger" 0 3600000 1)
  (list "endpoint" "timeout" 1 3600000 1)
  (list "endpoint" "connect_timeout" 1 3600000 1)
  (list "retry" "initial" 1 3600000 1)
  (list "retry" "max" 1 3600000 1)
  (list "retry" "max_retry_after" 1 3600000 1)
  (list "health" "probe_initial" 1 3600000 1)
  (list "health" "probe_max" 1 3600000 1)
  (list "health" "release_after" 0 3600000 1)
  (list "shutdown" "grace" 0 3600000 1)
-}}
{{- $key := printf "%s.%s" (index . 0) (index . 1) -}}
{{- $text := index $.Values.config (index . 0) (index . 1) -}}
{{- if kindIs "string" $text -}}
{{- $span := include "deletion-worker.milliseconds" $text | float64 -}}
{{- $_ := set $spans $key $span -}}
{{- if or (lt $span (index . 2 | float64)) (gt $span (index . 3 | float64)) -}}
{{- $errors = append $errors (printf "config.%s: %q is out of range, which is %d ms to 1h" $key $text (index . 2)) -}}
{{- else if ne (mulf (divf $span (index . 4) | floor) (index . 4)) $span -}}
{{- $errors = append $errors (printf "config.%s: %q is not a multiple of %d ms" $key $text (index . 4)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list
  (list "retry.initial" "retry.max")
  (list "health.probe_initial" "health.probe_max")
  (list "endpoint.connect_timeout" "endpoint.timeout")
-}}
{{- $short := index . 0 -}}
{{- $long := index . 1 -}}
{{- if and (hasKey $spans $short) (hasKey $spans $long) -}}
{{- if gt (get $spans $short) (get $spans $long) -}}
{{- $errors = append $errors (printf "config.%s: longer than %s" $short $long) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateRollout" -}}
{{- $errors := list -}}
{{- $least := include "deletion-worker.graceSeconds" . | int -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if not (kindIs "invalid" $given) -}}
{{- if lt (int $given) $least -}}
{{- $errors = append $errors (printf "terminationGracePeriodSeconds: %d would kill the worker while it drains; config.shutdown.grace=%s needs at least %d" (int $given) .Values.config.shutdown.grace $least) -}}
{{- end -}}
{{- end -}}
{{- $isMax := not (kindIs "invalid" .Values.pdb.maxUnavailable) -}}
{{- $isMin := not (kindIs "invalid" .Values.pdb.minAvailable) -}}
{{- if and .Values.pdb.enabled (eq $isMax $isMin) -}}
{{- $errors = append $errors "pdb: exactly one of maxUnavailable and minAvailable has to be set; null unsets the other" -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateMonitors" -}}
{{- $errors := list -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- $errors = append $errors "podMonitor and serviceMonitor: both are enabled, every pod would be scraped twice" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) -}}
{{- $errors = append $errors "serviceMonitor.enabled: needs service.enabled; a PodMonitor doesn't" -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "deletion-worker.validateKeda" -}}
{{- $errors := list -}}
{{- $keda := .Values.keda -}}
{{- if $keda.enabled -}}
{{- if gt (int $keda.minReplicaCount) (int $keda.maxReplicaCount) -}}
{{- $errors = append $errors "keda.minReplicaCount: more than keda.maxReplicaCount" -}}
{{- end -}}
{{- if and .Values.config.amqp.single_active_consumer (gt (int $keda.maxReplicaCount) 2) -}}
{{- $errors = append $errors (printf "keda.maxReplicaCount: %d, but config.amqp.single_active_consumer lets one replica consume, and a second stand by; more delete nothing" (int $keda.maxReplicaCount)) -}}
{{- end -}}
{{- if not $keda.existingSecret -}}
{{- $errors = append $errors "keda.existingSecret: required, the Secret with the login for RabbitMQ's management API" -}}
{{- end -}}
{{- if and $keda.host $keda.hostKey -}}
{{- $errors = append $errors "keda: both host and hostKey are set" -}}
{{- else if not (or $keda.host $keda.hostKey) -}}
{{- $errors = append $errors "keda.host: required, the URL of RabbitMQ's management API; or keda.hostKey" -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}
