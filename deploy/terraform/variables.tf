variable "trail_name" {
  description = "The trail's name in traild.toml; topic, log group, bus and aliases are called after it."
  type        = string
  default     = "main"
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]{1,62}[A-Za-z0-9]$", var.trail_name))
    error_message = "trail_name has 3 to 64 letters, digits and hyphens."
  }
}

variable "bucket_name" {
  description = "Null, traild-TRAIL-ACCOUNT-REGION."
  type        = string
  default     = null
}

variable "key_prefix" {
  description = "In front of /AWSLogs/; empty for none."
  type        = string
  default     = ""
  validation {
    condition     = !startswith(var.key_prefix, "/") && !endswith(var.key_prefix, "/")
    error_message = "key_prefix neither begins nor ends with a slash."
  }
}

variable "runs_on" {
  description = "Who may take the daemon's role: ecs, eks-pod-identity, ec2, or eks-irsa, which takes irsa."
  type        = string
  default     = "ecs"
  validation {
    condition     = contains(["ecs", "eks-pod-identity", "eks-irsa", "ec2"], var.runs_on)
    error_message = "runs_on is ecs, eks-pod-identity, eks-irsa or ec2."
  }
}

variable "irsa" {
  description = "For eks-irsa: the cluster's OIDC provider, and the service account, as system:serviceaccount:NAMESPACE:NAME."
  type = object({
    provider_arn = string
    subject      = string
  })
  default = null
}

variable "with_topic" {
  type    = bool
  default = true
}

variable "with_log_group" {
  type    = bool
  default = true
}

variable "log_retention_days" {
  type    = number
  default = 90
}

variable "with_event_bus" {
  type    = bool
  default = true
}

variable "digests_signed_by_kms" {
  description = "With false traild makes its own keys in digest.key_dir."
  type        = bool
  default     = true
}

variable "object_lock" {
  description = "GOVERNANCE or COMPLIANCE, and for how many days. COMPLIANCE cannot be taken back, by nobody. Only a bucket that is new gets it."
  type = object({
    mode = string
    days = number
  })
  default = null
}

variable "tags" {
  type    = map(string)
  default = {}
}
