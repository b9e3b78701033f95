{{- define "basekeeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "basekeeper" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-basekeeper" (.Release.Name | trunc 29 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "basekeeper.selectorLabels" -}}
app.kubernetes.io/name: basekeeper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "basekeeper.labels" -}}
{{ include "basekeeper.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* With labels on top, each name once: not all who read manifests bear a name twice. */}}
{{- define "basekeeper.labelsAnd" -}}
{{- toYaml (merge (deepCopy (.labels | default dict)) (include "basekeeper.labels" .root | fromYaml)) -}}
{{- end -}}

{{- /* Without the chart's version: a new chart that changes nothing of a pod restarts none. */}}
{{- define "basekeeper.podLabels" -}}
{{- $own := include "basekeeper.selectorLabels" .root | fromYaml -}}
{{- toYaml (merge (dict "app.kubernetes.io/component" .component) $own (.labels | default dict) (.root.Values.commonLabels | default dict)) -}}
{{- end -}}

{{- define "basekeeper.agentAccount" -}}
{{- .Values.agent.serviceAccount.name | default (printf "%s-agent" (include "basekeeper.fullname" .)) -}}
{{- end -}}

{{- define "basekeeper.controllerAccount" -}}
{{- .Values.controller.serviceAccount.name | default (printf "%s-controller" (include "basekeeper.fullname" .)) -}}
{{- end -}}

{{- define "basekeeper.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "basekeeper.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" .component -}}
{{- if .root.Values.scrape.annotations -}}
{{- $own = merge $own (dict "prometheus.io/scrape" "true" "prometheus.io/port" .port "prometheus.io/path" "/metrics") -}}
{{- end -}}
{{- toYaml (merge (deepCopy (.annotations | default dict)) $own) -}}
{{- end -}}

{{- /* Whoever is no agent: no user of the host's, no capability, nothing to write to. */}}
{{- define "basekeeper.restricted" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: {{ int64 .Values.controller.user }}
runAsGroup: {{ int64 .Values.controller.user }}
{{- end -}}

{{- define "basekeeper.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- /* A made file of ours with the release's labels and annotations put in; the rest stays letter by letter. */}}
{{- define "basekeeper.made" -}}
{{- $labels := include "basekeeper.labels" .root | nindent 4 -}}
{{- $put := printf "\n  labels:%s\n" $labels -}}
{{- with .annotations }}{{ $put = printf "\n  annotations:%s%s" (toYaml . | nindent 4) $put }}{{ end -}}
{{- .root.Files.Get .file | replace "\n  labels:\n    app.kubernetes.io/name: basekeeper\n" $put -}}
{{- end -}}

{{- /* "true" if a path is a directory or lies in it. */}}
{{- define "basekeeper.within" -}}
{{- if or (eq .path .directory) (hasPrefix (printf "%s/" .directory) .path) -}}true{{- end -}}
{{- end -}}

{{- /* "true" if a path lies in a host directory that agents mount for instances. */}}
{{- define "basekeeper.mounted" -}}
{{- $path := .path -}}
{{- $found := include "basekeeper.within" (dict "path" $path "directory" .root.Values.agent.paths.nova) -}}
{{- range .root.Values.agent.paths.extra -}}
{{- $found = or $found (include "basekeeper.within" (dict "path" $path "directory" .path)) -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{- define "basekeeper.testLabels" -}}
{{ include "basekeeper.labels" . }}
app.kubernetes.io/component: test
{{- end -}}

{{- /* What the pods of `helm test` have in common. They stay until the next test, for whoever wants to read them. */}}
{{- define "basekeeper.testPod" -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
restartPolicy: Never
securityContext:
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: check
    image: {{ include "basekeeper.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      - check-cluster
      - {{ .check }}
      - --within={{ .root.Values.tests.timeout }}
      {{- with .option }}
      - {{ . }}
      {{- end }}
    env:
      - name: NODE_NAME
        valueFrom:
          fieldRef:
            fieldPath: spec.nodeName
      - name: POD_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
    resources:
      requests:
        cpu: 20m
        memory: 64Mi
        ephemeral-storage: 1Mi
      limits:
        memory: 128Mi
        ephemeral-storage: 16Mi
    securityContext:
      {{- include "basekeeper.restricted" .root | nindent 6 }}
{{- end -}}

{{- define "basekeeper.agentSelector" -}}
app.kubernetes.io/name=basekeeper,app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=agent
{{- end -}}
