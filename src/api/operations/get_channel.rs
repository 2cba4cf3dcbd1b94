//! GetChannel: what a channel is set to, and what came by it last since the daemon started.

use serde::{Deserialize, Serialize};

use crate::api::channel::{Ingestion, Settings, found, resource};
use crate::api::{Call, Error, Operation};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetChannel {
    #[serde(default)]
    channel: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    #[serde(flatten)]
    settings: Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingestion_status: Option<Ingestion>,
}

impl Operation for GetChannel {
    const NAME: &'static str = "GetChannel";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![resource(&self.channel, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let channel = found(call, &self.channel)?;
        Ok(Answer {
            ingestion_status: call.home.ingestions.of(&channel.arn()),
            settings: Settings::new(&channel),
        })
    }
}
