{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough for the longest suffix and what Kubernetes adds to it. */ -}}
{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | replace "." "-" | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "headrace.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" | trunc 34 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels of everything. Takes {root, component}. */ -}}
{{- define "headrace.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{ include "headrace.selector" . }}
{{- end -}}

{{- define "headrace.selector" -}}
app.kubernetes.io/part-of: headrace
app.kubernetes.io/name: {{ include "headrace.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{- /* What every pod of the release has, whatever its component. Takes the root. */ -}}
{{- define "headrace.release-selector" -}}
app.kubernetes.io/part-of: headrace
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* An image of ours. Takes {root, service, override}. */ -}}
{{- define "headrace.image" -}}
{{- if .override -}}
{{- .override -}}
{{- else -}}
{{- printf "%s%s:%s" .root.Values.image.prefix .service (default .root.Chart.AppVersion .root.Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* What signs the console's sessions: a secret that exists, or the one that the chart makes. */ -}}
{{- define "headrace.console-secret" -}}
{{- default (printf "%s-console-sessions" (include "headrace.fullname" .)) .Values.consoleSecret.existingSecret -}}
{{- end -}}

{{- /* A value of the environment: big whole numbers stay whole. */ -}}
{{- define "headrace.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
