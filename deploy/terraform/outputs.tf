output "role_arn" {
  description = "The daemon's, for the task, the pod's service account or the instance."
  value       = aws_iam_role.traild.arn
}

output "auditor_policy_arn" {
  value = aws_iam_policy.auditor.arn
}

output "bucket" {
  value = aws_s3_bucket.logs.bucket
}

output "key_arn" {
  value = aws_kms_key.objects.arn
}

output "configuration" {
  description = "For traild.toml."
  value       = module.policies.configuration
}
