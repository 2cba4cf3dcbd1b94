{{/* The names that everything of a release has. */}}
{{- define "traild.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "traild.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "traild.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "traild.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "traild.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "traild.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "traild.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" $repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end -}}
{{- end -}}

{{/* The Secret of the credentials that have none of their own. */}}
{{- define "traild.credentialsSecret" -}}
{{ include "traild.fullname" . }}-credentials
{{- end -}}

{{/*
Seconds of a time as traild writes it, rounded up: "500ms", "1m30s".
*/}}
{{- define "traild.seconds" -}}
{{- $millis := 0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $millis = add $millis (mul (trimSuffix $unit . | int64) (get $units $unit | int64)) -}}
{{- end -}}
{{ div (add $millis 999) 1000 }}
{{- end -}}

{{/*
How long the kubelet waits between SIGTERM and SIGKILL: what delivery may take, and what the daemon needs besides, for open
requests, the journal's last sync and a slow disk. A SIGKILL loses nothing; it makes the next start longer.
*/}}
{{- define "traild.gracePeriodSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{ .Values.terminationGracePeriodSeconds | int64 }}
{{- else -}}
{{ add 20 (include "traild.seconds" .Values.config.delivery.stop_timeout | int64) }}
{{- end -}}
{{- end -}}

{{/* Bytes of a size as traild ("10GiB", "50MB") or Kubernetes ("20Gi", "50M") writes it. */}}
{{- define "traild.bytes" -}}
{{- $text := . | toString | lower | trimSuffix "b" -}}
{{- $units := dict "" 1 "k" 1000 "m" 1000000 "g" 1000000000 "t" 1000000000000 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776 -}}
{{- $digits := regexFind "^[0-9]+" $text -}}
{{- mul ($digits | int64) (get $units (trimPrefix $digits $text) | int64) -}}
{{- end -}}

{{/* What does not go together, told at once instead of by a pod that never becomes ready. */}}
{{- define "traild.check" -}}
{{- $auth := .Values.config.auth -}}
{{- if not .Values.configText -}}
  {{- if and (eq $auth.mode "sigv4") (not .Values.credentials) (not .Values.certificates) -}}
    {{- fail "credentials is empty, and so is certificates, so nobody could send: add one, or set config.auth.mode to \"none\" and config.auth.allow_anonymous to true, which lets everybody whom the network lets in write audit events" -}}
  {{- end -}}
  {{- if and (eq .Values.config.storage.kind "s3") (not .Values.config.trails) -}}
    {{- fail "config.storage.kind is \"s3\" and config.trails is empty, so nothing would be delivered: add a trail with a name and an s3_bucket_name" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.certificates (not (and .Values.tls.secretName .Values.tls.clientCa)) -}}
  {{- fail "certificates are shown by nobody who is not asked for one: name a Secret with tls.secretName and set tls.clientCa to true" -}}
{{- end -}}
{{- if not .Values.persistence.existingClaim -}}
  {{- $journal := include "traild.bytes" .Values.config.journal.max_bytes | int64 -}}
  {{- $volume := include "traild.bytes" .Values.persistence.size | int64 -}}
  {{- if gt (mul 10 $journal) (mul 9 $volume) -}}
    {{- fail (printf "config.journal.max_bytes (%v) is more than nine tenths of persistence.size (%v): the ledger, the digests and the dead letters are on the same volume" .Values.config.journal.max_bytes .Values.persistence.size) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Where a text is the configuration, the manifests' own decisions go into the environment, which overrides it. */}}
{{- define "traild.env" -}}
{{- if .Values.configText }}
- name: TRAILD__DATA_DIR
  value: /var/lib/traild
- name: TRAILD__LISTEN__API
  value: "{{ .Values.listenAddress }}:4580"
- name: TRAILD__LISTEN__OPS
  value: "{{ .Values.listenAddress }}:4581"
- name: TRAILD__DELIVERY__STOP_TIMEOUT
  value: {{ .Values.config.delivery.stop_timeout | quote }}
- name: TRAILD__JOURNAL__MAX_BYTES
  value: {{ .Values.config.journal.max_bytes | quote }}
{{- end }}
{{- with .Values.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.logLevel }}
- name: TRAILD_LOG
  value: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "traild.envFrom" -}}
{{- with .Values.aws.existingSecret }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "traild.claim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ .name }}
    labels:
      {{- .labels | nindent 6 }}
    {{- with .claim.annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes:
      {{- toYaml .claim.accessModes | nindent 6 }}
    {{- with .claim.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .claim.size }}
{{- end -}}
