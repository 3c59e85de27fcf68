{{/* Name of all objects of this release. */}}
{{- define "operator.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "operator.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "operator.name" .) }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The pods of every operator of this release, as a label selector. */}}
{{- define "operator.pods" -}}
{{- if .Values.shards -}}
matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}
matchExpressions:
  - {key: app.kubernetes.io/name, operator: In, values: [{{ .Chart.Name }}, {{ .Chart.Name }}-shard]}
{{- else -}}
matchLabels: {{- include "operator.selector" . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The operators as a list of {name, selector, arguments, replicas}: the main one, then the shards. Pods of shards have
another app.kubernetes.io/name, so that no selector of the main one finds them. */}}
{{- define "operator.operators" -}}
{{- $name := include "operator.name" . }}
{{- $others := list }}
{{- range .Values.shards }}
{{- $others = append $others (printf "--other-shard=%s" .name) }}
{{- end }}
{{- if ne (len $others) (len (uniq $others)) }}
{{- fail (printf "shards: expected each name once, found %s" (join ", " $others | replace "--other-shard=" "")) }}
{{- end }}
{{- $all := list (dict "name" $name "selector" (include "operator.selector" . | fromYaml) "arguments" $others "replicas" .Values.replicas) }}
{{- range .Values.shards }}
{{- $selector := dict "app.kubernetes.io/name" (printf "%s-shard" $.Chart.Name) "app.kubernetes.io/instance" $.Release.Name "tradingbot.dev/shard" .name }}
{{- $all = append $all (dict "name" (printf "%s-shard-%s" $name .name) "selector" $selector "arguments" (list (printf "--shard=%s" .name)) "replicas" (.replicas | default $.Values.replicas)) }}
{{- end }}
{{- toYaml (dict "operators" $all) }}
{{- end }}

{{- define "operator.caSecretName" -}}
{{ .Values.caSecretName | default (printf "%s-ca" (include "operator.name" .)) }}
{{- end }}

{{- define "operator.claimsNamespace" -}}
{{ .Values.claimsNamespace | default .Release.Namespace }}
{{- end }}

{{- define "operator.paperNamespace" -}}
{{ .Values.paperExchange.namespace | default .Release.Namespace }}
{{- end }}

{{/* As tradingbot_operator.leader.lease_name; a test compares. */}}
{{- define "operator.leaseName" -}}
{{- $namespaces := .Values.watchNamespaces | uniq | sortAlpha -}}
tradingbot-operator{{ if $namespaces }}-{{ join "|" $namespaces | sha256sum | trunc 8 }}{{ end }}
{{- end }}

{{- define "operator.image" -}}
{{ printf "%s:%s" .repository (toString .tag) }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "operator.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What allowedImages lets in, for the admission policy and for the check of botImage: an expression of RE2. */}}
{{- define "operator.allowedImage" -}}
{{- $names := list }}
{{- range .Values.allowedImages.prefixes }}
{{- /* A whole name, or what is below it. No slash after a colon: that would be the port of a host. */}}
{{- $below := ternary "[^@]+" "(/[^@]+|:[^/@]+)?" (hasSuffix "/" .) }}
{{- $digest := printf "(@sha256:[0-9a-f]{64})%s" (ternary "" "?" $.Values.allowedImages.digest) }}
{{- $names = append $names (printf "%s%s" (regexQuoteMeta .) (ternary "" (print $below $digest) (contains "@" .))) }}
{{- end }}
{{- printf "^(%s)$" (join "|" $names) }}
{{- end }}

{{/* The same for people. */}}
{{- define "operator.allowedImages" -}}
{{ join ", " .Values.allowedImages.prefixes }}{{ if .Values.allowedImages.digest }} with a digest{{ end }}
{{- end }}

{{/* CEL: whether the pod of this name is a bot's, or is held to the same rule. */}}
{{- define "operator.isBotPod" -}}
{{- $root := index . 0 }}{{ $pod := index . 1 -}}
has({{ $pod }}.metadata.labels) && 'tradingbot.dev/bot' in {{ $pod }}.metadata.labels
{{- printf " || has(%s.metadata.ownerReferences) && %s.metadata.ownerReferences.exists(owner, owner.apiVersion.startsWith('tradingbot.dev/'))" $pod $pod }}
{{- with $root.Values.allowedImages.allPodsIn }} || request.namespace in {{ toRawJson . }}{{ end }}
{{- end }}

{{/* CEL: the images of one list of a pod. */}}
{{- define "operator.images" -}}
{{- $pod := index . 0 }}{{ $list := index . 1 }}{{ $image := ternary "item.image.reference" "item.image" (eq $list "volumes") -}}
(has({{ $pod }}.spec.{{ $list }}) ? {{ $pod }}.spec.{{ $list }}.filter(item, has(item.image)).map(item, {{ $image }}) : [])
{{- end }}

{{/* Not empty where pods are annotated for Prometheus: a PodMonitor beside annotations would scrape them twice. */}}
{{- define "operator.scrapeAnnotations" -}}
{{- if and .Values.scrapeAnnotations.enabled (not .Values.podMonitor.enabled) }}yes{{ end }}
{{- end }}

{{/* Refuses what no Prometheus Operator would take up, rather than to leave it out: bots would go unwatched. */}}
{{- define "operator.needsPrometheusOperator" -}}
{{- $root := index . 0 }}
{{- if not ($root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}
{{- fail (printf "%s: expected the API monitoring.coreos.com/v1 in the cluster, found none; install the CRDs of the Prometheus Operator first, or set it to false: %s without it. Where no cluster is asked (helm template, --dry-run=client): --api-versions monitoring.coreos.com/v1" (index . 1) (index . 2)) }}
{{- end }}
{{- end }}

{{/* The rules of rules/ with the values in their <<places>>. */}}
{{- define "operator.alerting" -}}
{{- $groups := list }}
{{- $alerts := list }}
{{- range $path, $_ := .Files.Glob "rules/*.yaml" }}
{{- $text := $.Files.Get $path | replace "<<runbooks>>" (trimSuffix "/" $.Values.prometheusRule.runbookBaseURL) }}
{{- range $name, $value := $.Values.prometheusRule.thresholds }}
{{- $text = $text | replace (printf "<<%s>>" $name) (toString $value) }}
{{- end }}
{{- if contains "<<" $text }}
{{- fail (printf "prometheusRule.thresholds lacks a value of %s: expected all of values.yaml" $path) }}
{{- end }}
{{- range $group := (fromYaml $text).groups }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- if $rule.alert }}
{{- $alerts = append $alerts $rule.alert }}
{{- $_ := set $rule "labels" (merge (dict) ($rule.labels | default dict) $.Values.prometheusRule.alertLabels) }}
{{- end }}
{{- if not (has $rule.alert $.Values.prometheusRule.exclude) }}{{ $rules = append $rules $rule }}{{ end }}
{{- end }}
{{- $groups = append $groups (set $group "rules" $rules) }}
{{- end }}
{{- end }}
{{- range $.Values.prometheusRule.exclude }}
{{- if not (has . $alerts) }}
{{- fail (printf "prometheusRule.exclude: expected names of %s, found %s" (join ", " $alerts) .) }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" $groups) }}
{{- end }}
