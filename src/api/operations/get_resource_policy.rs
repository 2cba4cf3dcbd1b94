//! GetResourcePolicy: the policy of a channel, as it was given.

use serde::Deserialize;

use crate::api::resource_policy::{self, Attached};
use crate::api::{Call, Error, Operation, channel};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetResourcePolicy {
    #[serde(default)]
    resource_arn: String,
}

impl Operation for GetResourcePolicy {
    const NAME: &'static str = "GetResourcePolicy";
    type Answer = Attached;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![channel::resource(&self.resource_arn, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Attached, Error> {
        let channel = resource_policy::channel(call, &self.resource_arn)?;
        let policy = channel.policy.clone();
        let policy = policy.ok_or_else(|| Error::ResourcePolicyNotFound(channel.arn()))?;
        Ok(Attached::new(channel.arn(), policy))
    }
}
