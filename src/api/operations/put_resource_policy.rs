//! PutResourcePolicy: who else may send events by a channel. A policy that is there already is replaced.

use serde::Deserialize;

use crate::api::resource_policy::{self, Attached};
use crate::api::{Call, Error, Operation, channel};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutResourcePolicy {
    #[serde(default)]
    resource_arn: String,
    #[serde(default)]
    resource_policy: String,
}

impl Operation for PutResourcePolicy {
    const NAME: &'static str = "PutResourcePolicy";
    type Answer = Attached;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![channel::resource(&self.resource_arn, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Attached, Error> {
        let arn = resource_policy::channel(call, &self.resource_arn)?.arn();
        resource_policy::check(&self.resource_policy, &arn)?;
        let policy = self.resource_policy.clone();
        let changed = channel::change(call, arn.clone(), |channel| {
            channel.policy = Some(policy);
            Ok(())
        });
        changed.await.map_err(resource_policy::gone)?;
        Ok(Attached::new(arn, self.resource_policy))
    }
}
