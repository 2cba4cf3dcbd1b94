//! DeleteResourcePolicy: only the account of the channel may send by it from now on.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, channel, resource_policy};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteResourcePolicy {
    #[serde(default)]
    resource_arn: String,
}

impl Operation for DeleteResourcePolicy {
    const NAME: &'static str = "DeleteResourcePolicy";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![channel::resource(&self.resource_arn, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let arn = resource_policy::channel(call, &self.resource_arn)?.arn();
        let of = arn.clone();
        let changed = channel::change(call, arn, |channel| match channel.policy.take() {
            Some(_) => Ok(()),
            None => Err(Error::ResourcePolicyNotFound(of)),
        });
        changed.await.map_err(resource_policy::gone)?;
        Ok(Empty {})
    }
}
