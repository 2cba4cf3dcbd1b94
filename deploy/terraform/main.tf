# What traild delivers to, the keys it encrypts and signs with, and the roles it runs with: the same as deploy/cloudformation/traild.yaml.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.id
  bucket  = coalesce(var.bucket_name, "traild-${var.trail_name}-${local.account}-${local.region}")

  log_group_name = "traild/${var.trail_name}"
  roles_prefix   = "traild-${var.trail_name}"
}

module "policies" {
  source = "./policies"

  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix
  account    = local.account
  region     = local.region
  trail_name = var.trail_name
  key_prefix = var.key_prefix
  runs_on    = var.runs_on
  irsa       = var.irsa

  bucket         = local.bucket
  key_arn        = aws_kms_key.objects.arn
  topic_arn      = one(aws_sns_topic.trail[*].arn)
  log_group_name = var.with_log_group ? local.log_group_name : null
  logs_role_arn  = one(aws_iam_role.logs[*].arn)
  event_bus_arn  = one(aws_cloudwatch_event_bus.trail[*].arn)
  digest_key_arn = one(aws_kms_key.digests[*].arn)
  object_lock    = var.object_lock != null
}

# Encrypts the objects, the topic and the log group.
resource "aws_kms_key" "objects" {
  description         = "traild ${var.trail_name}, log files and digests"
  enable_key_rotation = true
  policy              = module.policies.key
  tags                = var.tags
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "objects" {
  name          = "alias/traild-${var.trail_name}"
  target_key_id = aws_kms_key.objects.key_id
}

# Signs digests; its private part never leaves KMS. Whoever loses its public part cannot verify any more: keep it.
resource "aws_kms_key" "digests" {
  count                    = var.digests_signed_by_kms ? 1 : 0
  description              = "traild ${var.trail_name}, signs digests"
  customer_master_key_spec = "RSA_2048"
  key_usage                = "SIGN_VERIFY"
  tags                     = var.tags
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "digests" {
  count         = var.digests_signed_by_kms ? 1 : 0
  name          = "alias/traild-${var.trail_name}-digests"
  target_key_id = aws_kms_key.digests[0].key_id
}

resource "aws_s3_bucket" "logs" {
  bucket              = local.bucket
  object_lock_enabled = var.object_lock != null
  tags                = var.tags
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "logs" {
  bucket = aws_s3_bucket.logs.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.objects.arn
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket                  = aws_s3_bucket.logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_object_lock_configuration" "logs" {
  count  = var.object_lock == null ? 0 : 1
  bucket = aws_s3_bucket_versioning.logs.bucket
  rule {
    default_retention {
      mode = var.object_lock.mode
      days = var.object_lock.days
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  bucket     = aws_s3_bucket.logs.id
  policy     = module.policies.bucket
  depends_on = [aws_s3_bucket_public_access_block.logs]
}

resource "aws_sns_topic" "trail" {
  count             = var.with_topic ? 1 : 0
  name              = "traild-${var.trail_name}"
  kms_master_key_id = aws_kms_key.objects.key_id
  tags              = var.tags
}

resource "aws_cloudwatch_log_group" "trail" {
  count             = var.with_log_group ? 1 : 0
  name              = local.log_group_name
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.objects.arn
  tags              = var.tags
}

resource "aws_cloudwatch_event_bus" "trail" {
  count = var.with_event_bus ? 1 : 0
  name  = "traild-${var.trail_name}"
  tags  = var.tags
}

# The daemon.
resource "aws_iam_role" "traild" {
  name               = local.roles_prefix
  assume_role_policy = module.policies.trust
  tags               = var.tags
}

resource "aws_iam_role_policy" "traild" {
  name   = "traild"
  role   = aws_iam_role.traild.name
  policy = module.policies.daemon
}

# cloud_watch_logs_role_arn: CloudTrail's API wants one, and the log group may be of another account.
resource "aws_iam_role" "logs" {
  count = var.with_log_group ? 1 : 0
  name  = "${local.roles_prefix}-logs"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = aws_iam_role.traild.arn }
      Action    = "sts:AssumeRole"
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "logs" {
  count  = var.with_log_group ? 1 : 0
  name   = "traild-logs"
  role   = aws_iam_role.logs[0].name
  policy = module.policies.logs
}

# For whoever runs "traild verify" or the AWS CLI over the bucket: reads, and nothing else.
resource "aws_iam_policy" "auditor" {
  name   = "${local.roles_prefix}-auditor"
  policy = module.policies.auditor
  tags   = var.tags
}
