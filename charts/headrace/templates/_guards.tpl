{{- /* What a schema can't say: values that are each allowed and together would not work. */ -}}
{{- define "headrace.guards" -}}
{{- $kafka := .Values.kafka -}}
{{- if and (lt (int $kafka.replication) 3) (not $kafka.acceptLoss) -}}
{{- fail (printf "kafka.replication: %d replicas lose what was acknowledged when a broker is lost; use 3 or more, or set kafka.acceptLoss" (int $kafka.replication)) -}}
{{- end -}}
{{- range $key := list "featureWorker" "sampleJoiner" -}}
{{- $worker := get $.Values $key -}}
{{- $most := ternary $worker.autoscaling.maxReplicas $worker.replicas $worker.autoscaling.enabled -}}
{{- if gt (int $most) (int $kafka.partitions) -}}
{{- fail (printf "%s: %d replicas share %d partitions (kafka.partitions): those without one would never be ready" $key (int $most) (int $kafka.partitions)) -}}
{{- end -}}
{{- end -}}
{{- range $facts := include "headrace.services" . | fromYaml -}}
{{- $scaling := (get $.Values $facts.key).autoscaling -}}
{{- if and $scaling $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas %d is more than maxReplicas %d" $facts.key (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and (not (hasPrefix "file://" .Values.models.url)) (eq .Values.modelServer.kind "tensorflow-serving") -}}
{{- fail (printf "models.url: tensorflow/serving reads a mounted folder here, not %s; use file:///var/lib/headrace/models" .Values.models.url) -}}
{{- end -}}
{{- if and (hasPrefix "file://" .Values.models.url) (ne .Values.models.url "file:///var/lib/headrace/models") -}}
{{- fail (printf "models.url: %s is no mounted folder; the volume of models is at file:///var/lib/headrace/models" .Values.models.url) -}}
{{- end -}}
{{- end -}}
