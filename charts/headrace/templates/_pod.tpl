{{- define "headrace.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "headrace.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
privileged: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where a pod runs. Takes {root, component, values}. */ -}}
{{- define "headrace.scheduling" -}}
{{- with .values.scheduling -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "headrace.selector" $ | fromYaml | toJson }}}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where Kafka is and how it is spoken to; files are those of the volume of secrets. Takes the root. */ -}}
{{- define "headrace.kafka-env" -}}
{{- $security := .Values.kafka.security -}}
- {name: HEADRACE_KAFKA, value: {{ .Values.kafka.bootstrapServers | quote }}}
- {name: HEADRACE_KAFKA_SECURITY_PROTOCOL, value: {{ $security.protocol }}}
{{- if hasPrefix "SASL" $security.protocol }}
- {name: HEADRACE_KAFKA_SASL_MECHANISM, value: {{ $security.mechanism }}}
- {name: HEADRACE_KAFKA_USER, value: {{ $security.user | quote }}}
{{- end }}
{{- if hasSuffix "SSL" $security.protocol }}
{{- if $security.authorities.existingSecret }}
- {name: HEADRACE_KAFKA_CA_FILE, value: /etc/headrace/secrets/kafka-ca.crt}
{{- end }}
{{- if $security.certificate.existingSecret }}
- {name: HEADRACE_KAFKA_CERTIFICATE_FILE, value: /etc/headrace/secrets/kafka-user.crt}
- {name: HEADRACE_KAFKA_KEY_FILE, value: /etc/headrace/secrets/kafka-user.key}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.kafka-secrets" -}}
{{- $security := .Values.kafka.security -}}
{{- if hasPrefix "SASL" $security.protocol }}
- secret:
    name: {{ $security.password.existingSecret | quote }}
    items:
      - {key: {{ $security.password.key | quote }}, path: HEADRACE_KAFKA_PASSWORD}
{{- end }}
{{- if hasSuffix "SSL" $security.protocol }}
{{- with $security.authorities }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret | quote }}
    items:
      - {key: {{ .key | quote }}, path: kafka-ca.crt}
{{- end }}
{{- end }}
{{- with $security.certificate }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret | quote }}
    items:
      - {key: {{ .certificate | quote }}, path: kafka-user.crt}
      - {key: {{ .key | quote }}, path: kafka-user.key}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Secrets as files that the settings are read from. Takes {root, secrets, kafka}. */ -}}
{{- define "headrace.secrets-volume" -}}
name: secrets
projected:
  defaultMode: 0440
  sources:
{{- range .secrets }}
{{- $given := get $.root.Values . }}
    - secret:
        name: {{ ternary (include "headrace.console-secret" $.root) $given.existingSecret (eq . "consoleSecret") | quote }}
        items:
          - key: {{ $given.key | quote }}
            path: {{ printf "HEADRACE_%s" (snakecase .) | upper }}
{{- end }}
{{- if .kafka }}
{{- include "headrace.kafka-secrets" .root | nindent 4 }}
{{- end }}
{{- end -}}

{{- /* The key that our services call each other with; a file that is read again when it changes. Takes the root. */ -}}
{{- define "headrace.api-key-volume" -}}
name: api-key
secret:
  secretName: {{ .Values.apiKeys.own.existingSecret | quote }}
  defaultMode: 0440
  items: [{key: {{ .Values.apiKeys.own.key | quote }}, path: key}]
{{- end -}}

{{- /* Folders of definitions that ConfigMaps replace. Takes the root. */ -}}
{{- define "headrace.definition-mounts" -}}
{{- range $kind, $name := .Values.definitions.configMaps }}
{{- if $name }}
- {name: definitions-{{ $kind }}, mountPath: /opt/headrace/definitions/{{ $kind }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.definition-volumes" -}}
{{- range $kind, $name := .Values.definitions.configMaps }}
{{- if $name }}
- {name: definitions-{{ $kind }}, configMap: {name: {{ $name | quote }}}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.models-volume" -}}
name: models
persistentVolumeClaim:
  claimName: {{ default (printf "%s-models" (include "headrace.fullname" .)) .Values.models.volume.existingClaim | quote }}
{{- end -}}

{{- /* Settings that all services have. Takes {root, metrics}. */ -}}
{{- define "headrace.common-env" -}}
- {name: HEADRACE_LOG_LEVEL, value: {{ .root.Values.logging.level | quote }}}
- {name: HEADRACE_LOG_FORMAT, value: {{ .root.Values.logging.format | quote }}}
- {name: PYTHONUNBUFFERED, value: "1"}
{{- end -}}

{{- /* A shell that keeps a command: SIGHUP starts it again, SIGTERM ends it and waits for its end. Takes the command. */ -}}
{{- define "headrace.restarter" -}}
trap 'kill "$child" 2>/dev/null' HUP; trap 'ending=1; kill "$child"' TERM INT;
while [ -z "$ending" ]; do {{ . }} & child=$!; while kill -0 "$child" 2>/dev/null; do wait "$child"; done; [ -n "$ending" ] || sleep 0.2; done
{{- end -}}

{{- /* The pod of a service. Takes {root, component, facts, values}. */ -}}
{{- define "headrace.pod" -}}
{{- $root := .root -}}
{{- $facts := .facts -}}
{{- $values := .values -}}
metadata:
  labels: {{- include "headrace.labels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
{{- if $root.Values.monitoring.annotations }}
    prometheus.io/scrape: "true"
    prometheus.io/path: /metrics
    prometheus.io/port: {{ get $facts.ports $facts.probes | toString | quote }}
{{- end }}
{{- with $values.podAnnotations }}
{{ toYaml . | indent 4 }}
{{- end }}
spec:
  serviceAccountName: {{ include "headrace.fullname" $root }}-{{ .component }}
  automountServiceAccountToken: {{ and (default false $facts.kubernetesApi) (eq $root.Values.jobs.executor "kubernetes") }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $facts.grace }}
  securityContext: {{- include "headrace.pod-security" $root | nindent 4 }}
{{- include "headrace.scheduling" . | nindent 2 }}
{{- if $root.Values.development.enabled }}
  initContainers:
    - name: code
      image: {{ include "headrace.image" (dict "root" $root "service" .component "override" $values.image) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [sh, -c, "cp -r /opt/headrace/venv/lib/python3.11/site-packages/headrace_* /opt/headrace/code/"]
      securityContext: {{- include "headrace.container-security" $root | nindent 8 }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: code, mountPath: /opt/headrace/code}
{{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "headrace.image" (dict "root" $root "service" .component "override" $values.image) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- if $root.Values.development.enabled }}
      # Starts the service again on SIGHUP, with the code that was put into the volume meanwhile.
      command: [sh, -c]
      args:
        - {{ include "headrace.restarter" (printf "headrace-%s" .component) | quote }}
{{- else }}
      command: [headrace-{{ .component }}]
{{- end }}
      securityContext: {{- include "headrace.container-security" $root | nindent 8 }}
      ports:
{{- range $name, $number := $facts.ports }}
        - {name: {{ $name }}, containerPort: {{ $number }}, protocol: TCP}
{{- end }}
      env:
{{- include "headrace.common-env" . | nindent 8 }}
{{- if $root.Values.development.enabled }}
        - {name: PYTHONPATH, value: /opt/headrace/code}
{{- end }}
{{- if ne $facts.probes "http" }}
        - {name: HEADRACE_METRICS_HOST, value: 0.0.0.0}
        - {name: HEADRACE_METRICS_PORT, value: {{ get $facts.ports $facts.probes | toString | quote }}}
{{- end }}
{{- if $facts.secrets }}
        - {name: HEADRACE_SECRETS_DIR, value: /etc/headrace/secrets}
{{- end }}
{{- if $facts.guarded }}
        - {name: HEADRACE_API_KEYS_FILE, value: /etc/headrace/api-keys}
{{- end }}
{{- if $facts.caller }}
        - {name: HEADRACE_API_KEY_FILE, value: /etc/headrace/api-key/key}
{{- end }}
{{- if $facts.replica }}
        # Unlike the pod's name it is unique within the length that a connection's name may have.
        - {name: HEADRACE_REPLICA, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
{{- end }}
{{- if ne .component "model-server" }}
{{- if ne .component "control-plane" }}
        - {name: HEADRACE_DEFINITIONS, value: /opt/headrace/definitions}
{{- end }}
{{- end }}
{{- if $facts.kafka }}
{{- include "headrace.kafka-env" $root | nindent 8 }}
{{- end }}
{{- if $facts.models }}
        - {name: HEADRACE_MODELS, value: {{ $root.Values.models.url | quote }}}
{{- end }}
{{- with $facts.state }}
        - {name: {{ .setting }}, value: {{ .path }}}
{{- end }}
{{- range $name, $value := $facts.env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $value := $values.settings }}
        - {name: HEADRACE_{{ upper $name }}, value: {{ include "headrace.text" $value | quote }}}
{{- end }}
{{- with $values.environment }}
{{- range $name, $value := . }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
      # Both routes answer while a dependency is away: only what a restart can mend ends a process, and it ends itself.
      startupProbe:
        httpGet: {path: /healthz, port: {{ $facts.probes }}}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: {{ $facts.probes }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: {{ $facts.probes }}}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 2
{{- if $facts.drain }}
      lifecycle:
        # SIGTERM ends the taking of connections, and endpoints are told of a pod's end only while it comes.
        preStop: {sleep: {seconds: {{ $facts.drain }}}}
{{- end }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
{{- if $root.Values.development.enabled }}
        - {name: code, mountPath: /opt/headrace/code}
{{- end }}
{{- if $facts.secrets }}
        - {name: secrets, mountPath: /etc/headrace/secrets, readOnly: true}
{{- end }}
{{- if $facts.guarded }}
        - {name: api-keys, mountPath: /etc/headrace/api-keys, readOnly: true}
{{- end }}
{{- if $facts.caller }}
        - {name: api-key, mountPath: /etc/headrace/api-key, readOnly: true}
{{- end }}
{{- if $facts.kubernetesApi }}
        - {name: job-template, mountPath: /etc/headrace/job-template.yaml, subPath: job-template.yaml, readOnly: true}
{{- end }}
{{- if and $facts.models (hasPrefix "file://" $root.Values.models.url) }}
        - {name: models, mountPath: /var/lib/headrace/models{{ if eq $facts.models "read" }}, readOnly: true{{ end }}}
{{- end }}
{{- with $facts.state }}
        - {name: state, mountPath: {{ .path }}}
{{- end }}
{{- include "headrace.definition-mounts" $root | nindent 8 }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: {{ $values.tmp }}}}
{{- if $root.Values.development.enabled }}
    - {name: code, emptyDir: {sizeLimit: 64Mi}}
{{- end }}
{{- if $facts.secrets }}
    - {{- include "headrace.secrets-volume" (dict "root" $root "secrets" $facts.secrets "kafka" $facts.kafka) | nindent 6 }}
{{- end }}
{{- if $facts.guarded }}
    - {name: api-keys, secret: {secretName: {{ $root.Values.apiKeys.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
{{- if $facts.caller }}
    - {{- include "headrace.api-key-volume" $root | nindent 6 }}
{{- end }}
{{- if $facts.kubernetesApi }}
    - {name: job-template, configMap: {name: {{ include "headrace.fullname" $root }}-job-template}}
{{- end }}
{{- if and $facts.models (hasPrefix "file://" $root.Values.models.url) }}
    - {{- include "headrace.models-volume" $root | nindent 6 }}
{{- end }}
{{- if and $facts.state (eq $facts.kind "Deployment") }}
    - {name: state, persistentVolumeClaim: {claimName: {{ include "headrace.fullname" $root }}-{{ .component }}}}
{{- end }}
{{- include "headrace.definition-volumes" $root | nindent 4 }}
{{- end -}}
