{{/* How a monitor scrapes the metrics port. Takes a list: the root, and the monitor's values. */}}
{{- define "deletion-worker.scrape" -}}
{{- $monitor := index . 1 -}}
- port: metrics
  path: /metrics
  interval: {{ $monitor.interval }}
  {{- with $monitor.scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  relabelings:
    {{- /* The same with either monitor, so that alerts and dashboard don't care. */}}
    - targetLabel: job
      replacement: {{ include "deletion-worker.fullname" (index . 0) | quote }}
    {{- with $monitor.relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
