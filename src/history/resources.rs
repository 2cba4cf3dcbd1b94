//! The resources that an event is looked up by: `Resources` of LookupEvents.
//!
//! They are aliases, not the record's own list: CreateUser names the new user three times, by name, by ARN and by id. AWS publishes no table of them.
//! This one goes by the names of members: where a request or a response of a service has a member of that name, its text is the name of a resource
//! of that type. What the record itself lists in `resources` is always among them.

use std::borrow::Cow;

use crate::event::Fields;
use crate::event::fields::{as_text, each_member, elements};
use crate::event::scan::Field;

/// Of one event; a request may name more.
pub const MAX_RESOURCES: usize = 200;

/// A resource by one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource<'a> {
    /// As in `AWS::IAM::User`. Some records list a resource without.
    pub kind: Option<Cow<'a, str>>,
    pub name: Cow<'a, str>,
}

/// A member that names a resource.
struct Row {
    /// What the operation's name must contain, for members whose own name says too little.
    event: &'static str,
    /// A member's name, or that of the object it is in and its own.
    member: &'static str,
    kind: &'static str,
}

const fn row(member: &'static str, kind: &'static str) -> Row {
    Row {
        event: "",
        member,
        kind,
    }
}

const fn row_of(event: &'static str, member: &'static str, kind: &'static str) -> Row {
    Row {
        event,
        member,
        kind,
    }
}

/// By `eventSource`.
fn rows(source: &str) -> &'static [Row] {
    match source {
        "iam.amazonaws.com" => IAM,
        "sts.amazonaws.com" => STS,
        "ec2.amazonaws.com" => EC2,
        "ec2-instance-connect.amazonaws.com" => EC2_INSTANCE_CONNECT,
        "s3.amazonaws.com" => S3,
        "kms.amazonaws.com" => KMS,
        "ssm.amazonaws.com" => SSM,
        "secretsmanager.amazonaws.com" => SECRETS_MANAGER,
        "rds.amazonaws.com" => RDS,
        "lambda.amazonaws.com" => LAMBDA,
        "cloudtrail.amazonaws.com" => CLOUDTRAIL,
        "logs.amazonaws.com" => LOGS,
        "monitoring.amazonaws.com" => CLOUDWATCH,
        "events.amazonaws.com" => EVENTS,
        "sns.amazonaws.com" => SNS,
        "sqs.amazonaws.com" => SQS,
        "dynamodb.amazonaws.com" => DYNAMODB,
        "elasticloadbalancing.amazonaws.com" => ELASTIC_LOAD_BALANCING,
        "autoscaling.amazonaws.com" => AUTO_SCALING,
        "cloudformation.amazonaws.com" => CLOUDFORMATION,
        "eks.amazonaws.com" => EKS,
        "ecs.amazonaws.com" => ECS,
        "ecr.amazonaws.com" => ECR,
        "elasticfilesystem.amazonaws.com" => EFS,
        "guardduty.amazonaws.com" => GUARDDUTY,
        "config.amazonaws.com" => CONFIG,
        "cloudfront.amazonaws.com" => CLOUDFRONT,
        "route53.amazonaws.com" => ROUTE_53,
        "wafv2.amazonaws.com" => WAF_V2,
        "apigateway.amazonaws.com" => API_GATEWAY,
        _ => &[],
    }
}

const IAM: &[Row] = &[
    row("userName", "AWS::IAM::User"),
    row("newUserName", "AWS::IAM::User"),
    row("user.arn", "AWS::IAM::User"),
    row("user.userId", "AWS::IAM::User"),
    row("roleName", "AWS::IAM::Role"),
    row("role.arn", "AWS::IAM::Role"),
    row("role.roleId", "AWS::IAM::Role"),
    row("groupName", "AWS::IAM::Group"),
    row("newGroupName", "AWS::IAM::Group"),
    row("group.arn", "AWS::IAM::Group"),
    row("group.groupId", "AWS::IAM::Group"),
    row("policyName", "AWS::IAM::Policy"),
    row("policyArn", "AWS::IAM::Policy"),
    row("policy.arn", "AWS::IAM::Policy"),
    row("policy.policyId", "AWS::IAM::Policy"),
    row("permissionsBoundary", "AWS::IAM::Policy"),
    row("instanceProfileName", "AWS::IAM::InstanceProfile"),
    row("instanceProfile.arn", "AWS::IAM::InstanceProfile"),
    row(
        "instanceProfile.instanceProfileId",
        "AWS::IAM::InstanceProfile",
    ),
    row("accessKeyId", "AWS::IAM::AccessKey"),
    row("serialNumber", "AWS::IAM::MFADevice"),
    row("sAMLProviderArn", "AWS::IAM::SAMLProvider"),
    row("openIDConnectProviderArn", "AWS::IAM::OIDCProvider"),
    row("serverCertificateName", "AWS::IAM::ServerCertificate"),
];

const STS: &[Row] = &[
    row("roleArn", "AWS::IAM::Role"),
    row("credentials.accessKeyId", "AWS::IAM::AccessKey"),
    row("assumedRoleUser.assumedRoleId", "AWS::STS::AssumedRole"),
    row("assumedRoleUser.arn", "AWS::STS::AssumedRole"),
    row("federatedUser.federatedUserId", "AWS::STS::FederatedUser"),
    row("federatedUser.arn", "AWS::STS::FederatedUser"),
];

const EC2: &[Row] = &[
    row("instanceId", "AWS::EC2::Instance"),
    row("imageId", "AWS::EC2::Ami"),
    row("keyName", "AWS::EC2::KeyPair"),
    row("keyPairId", "AWS::EC2::KeyPair"),
    row("vpcId", "AWS::EC2::VPC"),
    row("subnetId", "AWS::EC2::Subnet"),
    row("groupId", "AWS::EC2::SecurityGroup"),
    row("groupName", "AWS::EC2::SecurityGroup"),
    row("networkInterfaceId", "AWS::EC2::NetworkInterface"),
    row("volumeId", "AWS::EC2::Volume"),
    row("snapshotId", "AWS::EC2::Snapshot"),
    row("routeTableId", "AWS::EC2::RouteTable"),
    row("internetGatewayId", "AWS::EC2::InternetGateway"),
    row("gatewayId", "AWS::EC2::InternetGateway"),
    row("natGatewayId", "AWS::EC2::NatGateway"),
    row("allocationId", "AWS::EC2::EIP"),
    row("networkAclId", "AWS::EC2::NetworkAcl"),
    row("dhcpOptionsId", "AWS::EC2::DHCPOptions"),
    row("vpcEndpointId", "AWS::EC2::VPCEndpoint"),
    row("vpcPeeringConnectionId", "AWS::EC2::VPCPeeringConnection"),
    row("flowLogId", "AWS::EC2::FlowLog"),
    row("flowLogIds", "AWS::EC2::FlowLog"),
    row("launchTemplateId", "AWS::EC2::LaunchTemplate"),
    row("launchTemplateName", "AWS::EC2::LaunchTemplate"),
    row("transitGatewayId", "AWS::EC2::TransitGateway"),
    row("vpnConnectionId", "AWS::EC2::VPNConnection"),
    row("vpnGatewayId", "AWS::EC2::VPNGateway"),
    row("customerGatewayId", "AWS::EC2::CustomerGateway"),
];

const EC2_INSTANCE_CONNECT: &[Row] = &[row("instanceId", "AWS::EC2::Instance")];

const S3: &[Row] = &[row("bucketName", "AWS::S3::Bucket")];

const KMS: &[Row] = &[
    row("keyId", "AWS::KMS::Key"),
    row("targetKeyId", "AWS::KMS::Key"),
    row("keyMetadata.arn", "AWS::KMS::Key"),
    row("aliasName", "AWS::KMS::Alias"),
];

const SSM: &[Row] = &[
    row_of("Parameter", "name", "AWS::SSM::Parameter"),
    row_of("Parameter", "names", "AWS::SSM::Parameter"),
    row_of("Document", "name", "AWS::SSM::Document"),
    row("documentName", "AWS::SSM::Document"),
    row("instanceId", "AWS::EC2::Instance"),
    row("instanceIds", "AWS::EC2::Instance"),
    row_of("Session", "target", "AWS::EC2::Instance"),
];

const SECRETS_MANAGER: &[Row] = &[
    row("secretId", "AWS::SecretsManager::Secret"),
    row_of("CreateSecret", "name", "AWS::SecretsManager::Secret"),
    row("arn", "AWS::SecretsManager::Secret"),
    row("aRN", "AWS::SecretsManager::Secret"),
];

const RDS: &[Row] = &[
    row("dBInstanceIdentifier", "AWS::RDS::DBInstance"),
    row("dBInstanceArn", "AWS::RDS::DBInstance"),
    row("dBClusterIdentifier", "AWS::RDS::DBCluster"),
    row("dBClusterArn", "AWS::RDS::DBCluster"),
    row("dBSnapshotIdentifier", "AWS::RDS::DBSnapshot"),
    row("finalDBSnapshotIdentifier", "AWS::RDS::DBSnapshot"),
    row("dBSnapshotArn", "AWS::RDS::DBSnapshot"),
    row("dBClusterSnapshotIdentifier", "AWS::RDS::DBClusterSnapshot"),
    row("dBSubnetGroupName", "AWS::RDS::DBSubnetGroup"),
    row("dBSecurityGroupName", "AWS::RDS::DBSecurityGroup"),
    row("dBParameterGroupName", "AWS::RDS::DBParameterGroup"),
    row("optionGroupName", "AWS::RDS::OptionGroup"),
    row("globalClusterIdentifier", "AWS::RDS::GlobalCluster"),
];

const LAMBDA: &[Row] = &[
    row("functionName", "AWS::Lambda::Function"),
    row("functionArn", "AWS::Lambda::Function"),
    row("layerName", "AWS::Lambda::LayerVersion"),
];

const CLOUDTRAIL: &[Row] = &[
    row_of("Trail", "name", "AWS::CloudTrail::Trail"),
    row_of("Logging", "name", "AWS::CloudTrail::Trail"),
    row("trailName", "AWS::CloudTrail::Trail"),
    row("trailARN", "AWS::CloudTrail::Trail"),
    row("trailNameList", "AWS::CloudTrail::Trail"),
    row("resourceIdList", "AWS::CloudTrail::Trail"),
    row("s3BucketName", "AWS::S3::Bucket"),
    row("snsTopicName", "AWS::SNS::Topic"),
    row("snsTopicARN", "AWS::SNS::Topic"),
];

const LOGS: &[Row] = &[
    row("logGroupName", "AWS::Logs::LogGroup"),
    row("logStreamName", "AWS::Logs::LogStream"),
];

const CLOUDWATCH: &[Row] = &[
    row("alarmName", "AWS::CloudWatch::Alarm"),
    row("alarmNames", "AWS::CloudWatch::Alarm"),
];

const EVENTS: &[Row] = &[
    row_of("Rule", "name", "AWS::Events::Rule"),
    row("rule", "AWS::Events::Rule"),
    row("ruleArn", "AWS::Events::Rule"),
];

const SNS: &[Row] = &[row("topicArn", "AWS::SNS::Topic")];

const SQS: &[Row] = &[
    row("queueUrl", "AWS::SQS::Queue"),
    row("queueName", "AWS::SQS::Queue"),
];

const DYNAMODB: &[Row] = &[
    row("tableName", "AWS::DynamoDB::Table"),
    row("tableArn", "AWS::DynamoDB::Table"),
];

const ELASTIC_LOAD_BALANCING: &[Row] = &[
    row(
        "loadBalancerName",
        "AWS::ElasticLoadBalancing::LoadBalancer",
    ),
    row(
        "loadBalancerArn",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
    ),
    row("targetGroupArn", "AWS::ElasticLoadBalancingV2::TargetGroup"),
    row("listenerArn", "AWS::ElasticLoadBalancingV2::Listener"),
    row("ruleArn", "AWS::ElasticLoadBalancingV2::ListenerRule"),
];

const AUTO_SCALING: &[Row] = &[
    row("autoScalingGroupName", "AWS::AutoScaling::AutoScalingGroup"),
    row(
        "launchConfigurationName",
        "AWS::AutoScaling::LaunchConfiguration",
    ),
];

const CLOUDFORMATION: &[Row] = &[
    row("stackName", "AWS::CloudFormation::Stack"),
    row("stackId", "AWS::CloudFormation::Stack"),
];

const EKS: &[Row] = &[
    row_of("Cluster", "name", "AWS::EKS::Cluster"),
    row("clusterName", "AWS::EKS::Cluster"),
    row("cluster.arn", "AWS::EKS::Cluster"),
    row("nodegroupName", "AWS::EKS::Nodegroup"),
];

const ECS: &[Row] = &[
    row("clusterName", "AWS::ECS::Cluster"),
    row("clusterArn", "AWS::ECS::Cluster"),
    row("serviceName", "AWS::ECS::Service"),
    row("serviceArn", "AWS::ECS::Service"),
    row("taskDefinitionArn", "AWS::ECS::TaskDefinition"),
];

const ECR: &[Row] = &[
    row("repositoryName", "AWS::ECR::Repository"),
    row("repositoryArn", "AWS::ECR::Repository"),
];

const EFS: &[Row] = &[
    row("fileSystemId", "AWS::EFS::FileSystem"),
    row("mountTargetId", "AWS::EFS::MountTarget"),
];

const GUARDDUTY: &[Row] = &[row("detectorId", "AWS::GuardDuty::Detector")];

const CONFIG: &[Row] = &[
    row("configRuleName", "AWS::Config::ConfigRule"),
    row(
        "configurationRecorderName",
        "AWS::Config::ConfigurationRecorder",
    ),
    row("deliveryChannelName", "AWS::Config::DeliveryChannel"),
];

const CLOUDFRONT: &[Row] = &[
    row_of("Distribution", "id", "AWS::CloudFront::Distribution"),
    row("distribution.aRN", "AWS::CloudFront::Distribution"),
];

const ROUTE_53: &[Row] = &[
    row("hostedZoneId", "AWS::Route53::HostedZone"),
    row("hostedZone.id", "AWS::Route53::HostedZone"),
];

const WAF_V2: &[Row] = &[
    row_of("WebACL", "name", "AWS::WAFv2::WebACL"),
    row_of("WebACL", "id", "AWS::WAFv2::WebACL"),
    row_of("IPSet", "name", "AWS::WAFv2::IPSet"),
    row_of("IPSet", "id", "AWS::WAFv2::IPSet"),
    row_of("RuleGroup", "name", "AWS::WAFv2::RuleGroup"),
    row_of("RuleGroup", "id", "AWS::WAFv2::RuleGroup"),
];

const API_GATEWAY: &[Row] = &[
    row("restApiId", "AWS::ApiGateway::RestApi"),
    row("apiId", "AWS::ApiGatewayV2::Api"),
];

/// The event's resources, each alias once: of the request, of the response, then those that the record lists.
pub fn of<'a>(fields: &Fields<'a>) -> Vec<Resource<'a>> {
    let mut found = Found(Vec::new());
    let source = fields.text(Field::EventSource).unwrap_or_default();
    let table = rows(&source);
    if !table.is_empty() {
        let event = fields.text(Field::EventName).unwrap_or_default();
        let search = Search { table, event };
        for field in [Field::RequestParameters, Field::ResponseElements] {
            let value = fields.raw(field).unwrap_or_default();
            search.value(b"", b"", value, &mut found);
        }
    }
    for listed in fields.resources() {
        if let Some(name) = listed.arn.or(listed.arn_prefix) {
            found.add(listed.kind, name);
        }
    }
    found.0
}

struct Found<'a>(Vec<Resource<'a>>);

impl<'a> Found<'a> {
    fn add(&mut self, kind: Option<Cow<'a, str>>, name: Cow<'a, str>) {
        let resource = Resource { kind, name };
        let is_new = !resource.name.is_empty() && !self.0.contains(&resource);
        if is_new && self.0.len() < MAX_RESOURCES {
            self.0.push(resource);
        }
    }
}

/// A walk through what a request or a response holds. It goes as deep as an event may be ([`crate::event::check::MAX_DEPTH`]).
struct Search<'t> {
    table: &'static [Row],
    event: Cow<'t, str>,
}

impl Search<'_> {
    /// A value, the name of its member, and the name of the member that the object is in.
    fn value<'a>(&self, parent: &[u8], name: &[u8], value: &'a [u8], found: &mut Found<'a>) {
        match value.first() {
            Some(b'"') => {
                if let Some(row) = self.row(parent, name)
                    && let Some(text) = as_text(value)
                {
                    found.add(Some(Cow::Borrowed(row.kind)), text);
                }
            }
            Some(b'{') => each_member(value, |member, inner| {
                self.value(name, member, inner, found);
            }),
            Some(b'[') => elements(value).for_each(|element| {
                self.value(parent, name, element, found);
            }),
            _ => {}
        }
    }

    fn row(&self, parent: &[u8], name: &[u8]) -> Option<&'static Row> {
        self.table.iter().find(|row| {
            let is_named = match row.member.split_once('.') {
                None => row.member.as_bytes() == name,
                Some((object, member)) => member.as_bytes() == name && object.as_bytes() == parent,
            };
            is_named && self.event.contains(row.event)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::corpus;

    /// The resources of the corpus's event of this id.
    fn resources(event_id: &str) -> Vec<(String, String)> {
        let events = corpus::events();
        let wanted = format!("\"{event_id}\"");
        let event = events.iter().find(|event| {
            memchr::memmem::find(event, wanted.as_bytes()).is_some()
                && Fields::of(event).unwrap().text(Field::EventId).as_deref() == Some(event_id)
        });
        shown(event.unwrap())
    }

    fn shown(event: &[u8]) -> Vec<(String, String)> {
        let found = of(&Fields::of(event).unwrap());
        let text = |text: Option<Cow<'_, str>>| text.map_or(String::new(), Cow::into_owned);
        let shown = found.into_iter();
        shown
            .map(|it| (text(it.kind), it.name.into_owned()))
            .collect()
    }

    fn expect(event_id: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned()))
            .collect();
        assert_eq!(resources(event_id), expected, "{event_id}");
    }

    #[test]
    fn a_new_user_is_named_three_times() {
        expect(
            "66d008e1-12cf-4a45-99e7-0be67fc70d71",
            &[
                ("AWS::IAM::User", "stratus-red-team-nmfalu-gfjyeaypjt"),
                ("AWS::IAM::User", "AIDATFQR7NSCYG26CT6RI"),
                (
                    "AWS::IAM::User",
                    "arn:aws:iam::123837392027:user/stratus-red-team-nmfalu-gfjyeaypjt",
                ),
            ],
        );
    }

    #[test]
    fn an_assumed_role_is_named_with_its_session_and_its_key() {
        let role = "arn:aws:iam::123837392027:role/stratus-red-team-ec2-get-password-data-role";
        let session = "arn:aws:sts::123837392027:assumed-role/stratus-red-team-ec2-get-password-data-role/aws-go-sdk-1688990082523310002";
        expect(
            "4bd2a6f6-dddc-49e6-ba7d-08f73e809e64",
            &[
                ("AWS::IAM::Role", role),
                ("AWS::IAM::AccessKey", "ASIATFQR7NSC7E2ZIBM2"),
                (
                    "AWS::STS::AssumedRole",
                    "AROATFQR7NSCWWVLB7BES:aws-go-sdk-1688990082523310002",
                ),
                ("AWS::STS::AssumedRole", session),
            ],
        );
    }

    #[test]
    fn new_instances_are_named_with_all_they_are_made_of() {
        expect(
            "6589a9eb-59b7-4895-b7ab-962ed3cc257c",
            &[
                ("AWS::EC2::Ami", "ami-2d39803a"),
                ("AWS::EC2::KeyPair", "custodian.pem"),
                ("AWS::EC2::SecurityGroup", "sg-6c7fa917"),
                ("AWS::EC2::Instance", "i-0f7c711dc84bedda0"),
                ("AWS::EC2::Subnet", "subnet-914763e7"),
                ("AWS::EC2::VPC", "vpc-d2d616b5"),
                ("AWS::EC2::SecurityGroup", "default"),
                ("AWS::EC2::NetworkInterface", "eni-a4b20ca1"),
            ],
        );
    }

    #[test]
    fn services_of_the_corpus_name_their_resources() {
        expect(
            "3a1acb39-c13b-4e73-a0e3-dcd8ce5c1a3a",
            &[
                (
                    "AWS::CloudTrail::Trail",
                    "stratus-red-team-ctlr-trail-zqfsvooxqj",
                ),
                ("AWS::S3::Bucket", "stratus-red-team-ctlr-bucket-zqfsvooxqj"),
                (
                    "AWS::CloudTrail::Trail",
                    "arn:aws:cloudtrail:us-east-1:123837392027:trail/stratus-red-team-ctlr-trail-zqfsvooxqj",
                ),
            ],
        );
        expect(
            "10163ed2-2253-469d-a5ee-cbc6651f8934",
            &[(
                "AWS::CloudTrail::Trail",
                "stratus-red-team-ct-stop-trail-buykxbqejv",
            )],
        );
        expect(
            "30f9bf7b-a5dd-4661-8c97-d288ef5680a1",
            &[
                (
                    "AWS::SecretsManager::Secret",
                    "stratus-red-team-retrieve-secret-0",
                ),
                (
                    "AWS::SecretsManager::Secret",
                    "arn:aws:secretsmanager:us-east-1:123837392027:secret:stratus-red-team-retrieve-secret-0-xehWok",
                ),
            ],
        );
        expect(
            "0516b66a-77ec-4479-a82d-0cda54d3fc5d",
            &[
                (
                    "AWS::RDS::DBInstance",
                    "terraform-20230710121504061500000001",
                ),
                ("AWS::RDS::DBSnapshot", "exfiltration"),
                (
                    "AWS::RDS::DBSnapshot",
                    "arn:aws:rds:us-east-1:123837392027:snapshot:exfiltration",
                ),
                ("AWS::RDS::OptionGroup", "default:mysql-8-0"),
            ],
        );
        expect(
            "7e96f0e7-4d78-423d-b3f5-391370685b30",
            &[("AWS::EC2::SecurityGroup", "sg-04cfb7a4712d75b00")],
        );
        expect(
            "349b65f9-1932-4258-a52e-476cf4fcf6d7",
            &[("AWS::Logs::LogGroup", "/stratus-red-team/vpc-flow-logs")],
        );
        expect(
            "99b46479-d5c7-4384-b342-006ece8c36a0",
            &[
                ("AWS::EC2::Instance", "i-0dbc91f429e48eeed"),
                ("AWS::SSM::Document", "AWS-RunShellScript"),
            ],
        );
    }

    #[test]
    fn what_the_record_lists_is_there_with_or_without_a_type() {
        expect(
            "93e58a50-11f0-4859-8f1c-472dd35a1aeb",
            &[
                (
                    "AWS::SSM::Parameter",
                    "/credentials/stratus-red-team/credentials-34",
                ),
                (
                    "",
                    "arn:aws:ssm:us-east-1:123837392027:parameter/credentials/stratus-red-team/credentials-34",
                ),
            ],
        );
        let key = "arn:aws:kms:us-east-1:123837392027:key/dad21b23-9915-42bd-981b-2a9f3c8f20c8";
        expect(
            "c6ebc8b7-572c-4123-92bf-9d94933724ca",
            &[("AWS::KMS::Key", key)],
        );
        expect("70e5932e-9022-4b38-837e-ca10dad94eb7", &[]);
    }

    /// So much of the corpus names something: a change of the table shows here.
    #[test]
    fn most_writes_of_the_corpus_name_a_resource() {
        let (mut writes, mut named) = (0, 0);
        for event in corpus::events() {
            let value: serde_json::Value = serde_json::from_slice(&event).unwrap();
            let is_request = value["requestParameters"]
                .as_object()
                .is_some_and(|it| !it.is_empty());
            if value["readOnly"] == false && is_request && value["errorCode"].is_null() {
                writes += 1;
                named += usize::from(!shown(&event).is_empty());
            }
        }
        assert!(named * 100 > writes * 90, "{named} of {writes}");
    }

    #[test]
    fn no_event_names_more_than_there_is_room_for() {
        let ids: Vec<String> = (0..1000)
            .map(|n| format!(r#"{{"instanceId":"i-{n}"}}"#))
            .collect();
        let json = format!(
            r#"{{"eventSource":"ec2.amazonaws.com","eventName":"StopInstances","requestParameters":{{"instancesSet":{{"items":[{}]}}}}}}"#,
            ids.join(",")
        );
        assert_eq!(shown(json.as_bytes()).len(), MAX_RESOURCES);
    }
}
