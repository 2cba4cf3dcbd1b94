{{/*
TOML from values. Helm's own toToml writes whole numbers as fractions, which traild refuses: numbers of values are floats.
JSON's strings are TOML's basic strings.
*/}}
{{- define "traild.toml.value" -}}
{{- if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "traild.toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $item := . }}{{ $pairs = append $pairs (printf "%s = %s" $key (include "traild.toml.value" $item)) }}{{ end -}}
{ {{ join ", " $pairs }} }
{{- else -}}
{{ int64 . }}
{{- end -}}
{{- end -}}

{{/* The tables that a list has, which get a heading each. */}}
{{- define "traild.toml.isTables" -}}
{{- if and (kindIs "slice" .) . }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end -}}
{{- end -}}

{{/* The lines of keys with one value each; what is deeper than a section is written inline. */}}
{{- define "traild.toml.pairs" -}}
{{- range $key, $item := . }}
{{- if not (or (kindIs "invalid" $item) (and (kindIs "slice" $item) (empty $item))) }}
{{ $key }} = {{ include "traild.toml.value" $item }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "traild.toml.tables" -}}
{{- range .tables }}

[[{{ $.name }}]]
{{- include "traild.toml.pairs" . }}
{{- end }}
{{- end -}}

{{/* A whole configuration: the keys of the root, its sections, its lists of tables. */}}
{{- define "traild.toml" -}}
{{- $root := dict }}{{ $sections := dict }}{{ $tables := dict -}}
{{- range $key, $item := . }}
  {{- if include "traild.toml.isTables" $item }}{{ $_ := set $tables $key $item }}
  {{- else if kindIs "map" $item }}{{ $_ := set $sections $key $item }}
  {{- else }}{{ $_ := set $root $key $item }}{{ end }}
{{- end }}
{{- include "traild.toml.pairs" $root }}
{{- range $section, $items := $sections }}
{{- $pairs := dict }}{{ $nested := dict -}}
{{- range $key, $item := $items }}
  {{- if include "traild.toml.isTables" $item }}{{ $_ := set $nested $key $item }}{{ else }}{{ $_ := set $pairs $key $item }}{{ end }}
{{- end }}
{{- with include "traild.toml.pairs" $pairs }}

[{{ $section }}]
{{- . }}
{{- end }}
{{- range $key, $item := $nested }}{{ include "traild.toml.tables" (dict "name" (printf "%s.%s" $section $key) "tables" $item) }}{{ end }}
{{- end }}
{{- range $key, $item := $tables }}{{ include "traild.toml.tables" (dict "name" $key "tables" $item) }}{{ end }}
{{- end -}}

{{/* The values' configuration, with what the manifests decide: where it listens, and where its files are. */}}
{{- define "traild.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "data_dir" "/var/lib/traild" -}}
{{- $listen := dict "api" (printf "%s:4580" .Values.listenAddress) "ops" (printf "%s:4581" .Values.listenAddress) -}}
{{- if .Values.tls.secretName -}}
  {{- $tls := dict "cert_file" "/etc/traild/tls/tls.crt" "key_file" "/etc/traild/tls/tls.key" -}}
  {{- if .Values.tls.clientCa -}}{{- $_ := set $tls "client_ca_file" "/etc/traild/tls/ca.crt" -}}{{- end -}}
  {{- $_ := set $listen "tls" $tls -}}
{{- end -}}
{{- $_ := set $config "listen" $listen -}}
{{- if .Values.persistence.keys.enabled -}}
  {{- $_ := set $config.digest "key_dir" "/var/lib/traild-keys/keys" -}}
{{- end -}}
{{- $credentials := list -}}
{{- range .Values.credentials -}}
  {{- $credential := dict "access_key_id" .accessKeyId "secret_access_key_file" (printf "/etc/traild/credentials/%s" .accessKeyId) -}}
  {{- with .accountId }}{{ $_ := set $credential "account_id" . }}{{ end -}}
  {{- if .policy }}{{ $_ := set $credential "policy_file" (printf "/etc/traild/policy-%s.json" .accessKeyId) }}{{ end -}}
  {{- $credentials = append $credentials $credential -}}
{{- end -}}
{{- if $credentials }}{{ $_ := set $config.auth "credentials" $credentials }}{{ end -}}
{{- $certificates := list -}}
{{- range $index, $known := .Values.certificates -}}
  {{- $certificate := dict -}}
  {{- range $key, $name := dict "uri" .uri "dns" .dns "common_name" .commonName "user_name" .userName "account_id" .accountId -}}
    {{- if $name }}{{ $_ := set $certificate $key $name }}{{ end -}}
  {{- end -}}
  {{- if .policy }}{{ $_ := set $certificate "policy_file" (printf "/etc/traild/policy-certificate-%d.json" $index) }}{{ end -}}
  {{- $certificates = append $certificates $certificate -}}
{{- end -}}
{{- if $certificates }}{{ $_ := set $config.auth "certificates" $certificates }}{{ end -}}
{{- include "traild.toml" $config | trim }}
{{- end -}}
