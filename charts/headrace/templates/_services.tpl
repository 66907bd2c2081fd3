{{- /*
What each service is: all that differs between them and is no choice of who installs. `key` is its part of the values.

  kind        Deployment, or StatefulSet where a replica keeps something of its own
  strategy    of a Deployment
  ports       name: number; the one named by `probes` has /healthz, /readyz and /metrics
  kafka       whether it reads or writes Kafka
  guarded     whether callers need a key of apiKeys.existingSecret
  caller      whether it calls such a service, with the key apiKeys.own
  secrets     of files in /etc/headrace/secrets, named by the setting that each is
  models      how the volume of model artifacts is mounted: read or write
  state       {setting, path} of a volume of its own
  grace       seconds from SIGTERM to SIGKILL, and `drain` before SIGTERM, in which endpoints forget the pod
  env         settings that follow from the chart; no other way leads to them
*/ -}}
{{- define "headrace.services" -}}
{{- $full := include "headrace.fullname" . -}}
{{- $control := printf "http://%s-control-plane.%s.svc:8090" $full .Release.Namespace -}}
{{- $servers := printf "%s-model-server.%s.svc:8500" $full .Release.Namespace -}}
gateway:
  key: gateway
  kind: Deployment
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  ports: {http: 8080}
  probes: http
  kafka: true
  guarded: true
  caller: true
  secrets: [redis]
  drain: 5
  # Open requests and feature logs have the drain each.
  grace: {{ add 20 (div (mul 2 (default 10000 .Values.gateway.settings.gateway_drain_ms)) 1000) }}
  env:
    HEADRACE_GATEWAY_HOST: 0.0.0.0
    HEADRACE_GATEWAY_PORT: "8080"
    HEADRACE_CONTROL: {{ $control }}
    HEADRACE_MODEL: {{ .Values.models.serving | quote }}
    HEADRACE_MODEL_SERVER: {{ $servers }}
feature-worker:
  key: featureWorker
  kind: Deployment
  # One more than there are partitions would never be ready, and the roll-out would wait for it.
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}
  ports: {metrics: 9100}
  probes: metrics
  kafka: true
  secrets: [postgres, redis]
  drain: 0
  grace: 60
  replica: true
sample-joiner:
  key: sampleJoiner
  kind: Deployment
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}
  ports: {metrics: 9100}
  probes: metrics
  kafka: true
  caller: true
  secrets: [postgres]
  drain: 0
  grace: 60
  replica: true
  env:
    HEADRACE_CONTROL: {{ $control }}
control-plane:
  key: controlPlane
  kind: Deployment
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  ports: {http: 8090}
  probes: http
  kafka: true
  guarded: true
  caller: true
  secrets: [postgres, consoleSecret]
  drain: 5
  grace: 40
  kubernetesApi: true
  env:
    HEADRACE_CONTROL_HOST: 0.0.0.0
    HEADRACE_CONTROL_PORT: "8090"
    HEADRACE_RUNS: /tmp/runs
{{- if .Values.workflows.shipped }}
    HEADRACE_WORKFLOWS: /opt/headrace/definitions/workflows
{{- end }}
{{- if eq .Values.jobs.executor "kubernetes" }}
    HEADRACE_EXECUTOR: kubernetes
    HEADRACE_JOB_TEMPLATE: /etc/headrace/job-template.yaml
{{- end }}
    HEADRACE_CONSOLE_TARGETS: {{ include "headrace.console-targets" . | quote }}
trainer:
  key: trainer
  kind: Deployment
  # Its state has one owner: the former one ends before the next begins.
  strategy: {type: Recreate}
  ports: {metrics: 9100}
  probes: metrics
  kafka: true
  caller: true
  secrets: [postgres]
  models: write
  state: {setting: HEADRACE_TRAIN_STATE, path: /var/lib/headrace/trainer}
  drain: 0
  grace: 120
  env:
    HEADRACE_CONTROL: {{ $control }}
    HEADRACE_TRAIN_MODEL: {{ .Values.models.serving | quote }}
model-validator:
  key: modelValidator
  kind: Deployment
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  ports: {metrics: 9100}
  probes: metrics
  caller: true
  secrets: [postgres]
  models: read
  drain: 0
  grace: 60
  env:
    HEADRACE_CONTROL: {{ $control }}
    HEADRACE_MODEL: {{ .Values.models.serving | quote }}
    HEADRACE_MODEL_SERVER: {{ $servers }}
{{- if eq .Values.modelServer.kind "headrace" }}
model-server:
  key: modelServer
  # A pod that is replaced finds what it served, asks what is deployed, loads both, and only then is ready.
  kind: StatefulSet
  ports: {grpc: 8500, metrics: 9100}
  probes: metrics
  caller: true
  secrets: []
  models: read
  state: {setting: HEADRACE_MODEL_SERVER_STATE, path: /var/lib/headrace/model-server}
  drain: 5
  # Open requests have it before the stop, and before the last version is unloaded.
  grace: {{ add 20 (div (mul 2 (default 5000 .Values.modelServer.settings.model_server_drain_ms)) 1000) }}
  env:
    HEADRACE_MODEL_SERVER_HOST: 0.0.0.0
    HEADRACE_MODEL_SERVER_PORT: "8500"
    HEADRACE_CONTROL: {{ $control }}
    HEADRACE_MODEL_SERVER_FOLLOWS: {{ .Values.models.serving | quote }}
{{- end }}
{{- end -}}

{{- define "headrace.console-targets" -}}
{{- $full := include "headrace.fullname" . -}}
{{- $at := .Release.Namespace -}}
{{- $found := list (printf "gateway=http://%s-gateway.%s.svc:8080" $full $at) (printf "control-plane=http://%s-control-plane.%s.svc:8090" $full $at) -}}
{{- range list "feature-worker" "sample-joiner" "trainer" "model-validator" -}}
{{- $found = append $found (printf "%s=http://%s-%s.%s.svc:9100" . $full . $at) -}}
{{- end -}}
{{- if eq .Values.modelServer.kind "headrace" -}}
{{- $found = append $found (printf "model-server=http://%s-model-server.%s.svc:9100" $full $at) -}}
{{- end -}}
{{- join "," $found -}}
{{- end -}}
