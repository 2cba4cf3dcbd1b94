# Texts alone: no provider, nothing is made here. Each policy is a template beside this file, less the statements about what is not there.

variable "partition" { type = string }
variable "dns_suffix" { type = string }
variable "account" { type = string }
variable "region" { type = string }
variable "trail_name" { type = string }
variable "bucket" { type = string }
variable "key_prefix" {
  type    = string
  default = ""
}
variable "runs_on" {
  type    = string
  default = "ecs"
}
variable "irsa" {
  type    = object({ provider_arn = string, subject = string })
  default = null
}
variable "key_arn" { type = string }
variable "topic_arn" {
  type    = string
  default = null
}
variable "log_group_name" {
  type    = string
  default = null
}
variable "logs_role_arn" {
  type    = string
  default = null
}
variable "event_bus_arn" {
  type    = string
  default = null
}
variable "digest_key_arn" {
  type    = string
  default = null
}
variable "object_lock" {
  type    = bool
  default = false
}

locals {
  values = {
    partition      = var.partition
    dns_suffix     = var.dns_suffix
    account        = var.account
    region         = var.region
    trail_name     = var.trail_name
    bucket_arn     = "arn:${var.partition}:s3:::${var.bucket}"
    prefix         = var.key_prefix == "" ? "" : "${var.key_prefix}/"
    key_arn        = var.key_arn
    topic_arn      = coalesce(var.topic_arn, "none")
    log_group_name = coalesce(var.log_group_name, "none")
    logs_role_arn  = coalesce(var.logs_role_arn, "none")
    event_bus_arn  = coalesce(var.event_bus_arn, "none")
    digest_key_arn = coalesce(var.digest_key_arn, "none")
  }

  daemon  = jsondecode(templatefile("${path.module}/daemon.json", local.values))
  logs    = jsondecode(templatefile("${path.module}/logs.json", local.values))
  auditor = jsondecode(templatefile("${path.module}/auditor.json", local.values))
  bucket  = jsondecode(templatefile("${path.module}/bucket.json", local.values))

  # Without local.values, which has the ARN of the very key that this is the policy of.
  key = jsondecode(templatefile("${path.module}/key.json", {
    partition  = var.partition
    dns_suffix = var.dns_suffix
    account    = var.account
    region     = var.region
    trail_name = var.trail_name
  }))

  # Statements about what may not be there.
  absent = concat(
    var.topic_arn == null ? ["Notify", "EncryptNotifications"] : [],
    var.log_group_name == null ? ["WriteToTheLogGroup"] : [],
    var.event_bus_arn == null ? ["SendToTheBus"] : [],
    var.digest_key_arn == null ? ["ReadThePublicKey", "SignDigests"] : [],
  )

  services = {
    ecs              = "ecs-tasks.${var.dns_suffix}"
    eks-pod-identity = "pods.eks.amazonaws.com"
    ec2              = "ec2.${var.dns_suffix}"
    eks-irsa         = "none"
  }
  # What stands behind oidc-provider/ in the provider's ARN is how its tokens' claims are named.
  issuer = var.irsa == null ? "none" : split("oidc-provider/", var.irsa.provider_arn)[1]

  trusted = var.runs_on == "eks-irsa" ? {
    Effect    = "Allow"
    Principal = { Federated = var.irsa.provider_arn }
    Action    = ["sts:AssumeRoleWithWebIdentity"]
    Condition = { StringEquals = {
      "${local.issuer}:aud" = "sts.amazonaws.com"
      "${local.issuer}:sub" = var.irsa.subject
    } }
    } : {
    Effect    = "Allow"
    Principal = { Service = local.services[var.runs_on] }
    Action    = var.runs_on == "eks-pod-identity" ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]
    Condition = {}
  }

  log_group_arn = "arn:${var.partition}:logs:${var.region}:${var.account}:log-group:${local.values.log_group_name}:*"
}

output "daemon" {
  value = jsonencode(merge(local.daemon, { Statement = [for it in local.daemon.Statement : it if !contains(local.absent, it.Sid)] }))
}

output "logs" {
  value = jsonencode(local.logs)
}

output "auditor" {
  value = jsonencode(local.auditor)
}

output "bucket" {
  value = jsonencode(local.bucket)
}

output "key" {
  value = jsonencode(local.key)
}

output "trust" {
  value = jsonencode({ Version = "2012-10-17", Statement = [{ for name, value in local.trusted : name => value if try(length(value), 1) != 0 }] })
}

output "configuration" {
  value = join("\n", compact([
    "account_id = \"${var.account}\"",
    "region = \"${var.region}\"",
    "[storage]\nkind = \"s3\"",
    # S3 takes objects with a retention only with a checksum.
    var.object_lock ? "[aws]\nchecksum = \"when_supported\"" : "",
    var.digest_key_arn == null ? "" : "[digest]\nkms_key_id = \"${local.values.digest_key_arn}\"",
    "[[trails]]\nname = \"${var.trail_name}\"\ns3_bucket_name = \"${var.bucket}\"",
    var.key_prefix == "" ? "" : "s3_key_prefix = \"${var.key_prefix}\"",
    "kms_key_id = \"${var.key_arn}\"",
    var.topic_arn == null ? "" : "sns_topic_arn = \"${local.values.topic_arn}\"",
    var.log_group_name == null ? "" : "cloud_watch_logs_log_group_arn = \"${local.log_group_arn}\"\ncloud_watch_logs_role_arn = \"${local.values.logs_role_arn}\"",
    var.event_bus_arn == null ? "" : "event_bus = \"${local.values.event_bus_arn}\"",
  ]))
}
