{{- /* A store of one pod with its data. Takes {root, store, uid, values, storage, port, mount, probe, container, volumes}. */ -}}
{{- define "stores.labels" -}}
app.kubernetes.io/part-of: headrace
app.kubernetes.io/name: headrace-dev-stores
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .store | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- end -}}

{{- define "stores.selector" -}}
app.kubernetes.io/name: headrace-dev-stores
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .store | quote }}
{{- end -}}

{{- define "stores.store" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .store }}
  labels: {{- include "stores.labels" . | nindent 4 }}
spec:
  selector: {{- include "stores.selector" . | nindent 4 }}
  ports: [{name: {{ .store }}, port: {{ .port }}, targetPort: {{ .store }}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ .root.Release.Name }}-{{ .store }}
  labels: {{- include "stores.labels" . | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ .root.Release.Name }}-{{ .store }}
  selector:
    matchLabels: {{- include "stores.selector" . | nindent 6 }}
{{- if .storage }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: {{ .storage }}}}
{{- end }}
  template:
    metadata:
      labels: {{- include "stores.labels" . | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .uid }}
        runAsGroup: {{ .uid }}
        fsGroup: {{ .uid }}
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .store }}
          image: {{ .values.image | quote }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            runAsNonRoot: true
            privileged: false
            capabilities: {drop: [ALL]}
          ports: [{name: {{ .store }}, containerPort: {{ .port }}}]
          startupProbe: {tcpSocket: {port: {{ .store }}}, periodSeconds: 2, failureThreshold: 60}
          readinessProbe: {tcpSocket: {port: {{ .store }}}, periodSeconds: 3}
          resources: {{- toYaml .values.resources | nindent 12 }}
{{ tpl .container .root | indent 10 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
{{- if not .storage }}
        - {name: data, emptyDir: {sizeLimit: 1Gi}}
{{- end }}
{{- with .volumes }}
{{ tpl . $.root | indent 8 }}
{{- end }}
{{- end -}}
