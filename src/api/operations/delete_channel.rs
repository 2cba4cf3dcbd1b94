//! DeleteChannel: what has come by it stays.

use serde::Deserialize;

use crate::api::channel::{found, not_found, resource};
use crate::api::{Call, Empty, Error, Operation};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteChannel {
    #[serde(default)]
    channel: String,
}

impl Operation for DeleteChannel {
    const NAME: &'static str = "DeleteChannel";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![resource(&self.channel, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let arn = found(call, &self.channel)?.arn();
        let deleted = arn.clone();
        let change = call
            .home
            .registry
            .change(move |book| match book.channels.delete(&arn) {
                true => Ok(()),
                false => Err(not_found(&arn)),
            });
        change.await?;
        call.home.ingestions.forget(&deleted);
        tracing::info!(channel = deleted, "channel deleted");
        Ok(Empty {})
    }
}
