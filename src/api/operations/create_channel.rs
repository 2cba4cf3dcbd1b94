//! CreateChannel: a way in for events of a source outside of AWS, in the caller's account and the region of the request.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::channel::{Settings, check_destinations, check_name, check_source};
use crate::api::{Call, Error, Operation, tags};
use crate::registry::channels;
use crate::registry::{Channel, Destination, Tag};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateChannel {
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    destinations: Vec<Destination>,
    tags: Option<Vec<Tag>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    #[serde(flatten)]
    settings: Settings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
}

impl Operation for CreateChannel {
    const NAME: &'static str = "CreateChannel";
    type Answer = Answer;

    /// Its id is not known yet.
    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![channels::arn(call.caller.account, call.region, "*")]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let Self {
            name,
            source,
            destinations,
            tags,
        } = self;
        let account = call.caller.account;
        check_name(&name)?;
        check_source(&source)?;
        check_destinations(&destinations, account)?;
        let mut channel = Channel {
            id: Uuid::new_v4().hyphenated().to_string(),
            account,
            region: call.region,
            name,
            source,
            destinations,
            tags: Vec::new(),
            policy: None,
        };
        tags::add(&mut channel.tags, tags::checked(tags.unwrap_or_default())?)?;
        let answer = Answer {
            settings: Settings::new(&channel),
            tags: channel.tags.clone(),
        };
        let created = call
            .home
            .registry
            .change(move |book| Ok::<_, Error>(book.channels.create(channel)?));
        created.await?;
        tracing::info!(channel = answer.settings.channel_arn, "channel created");
        Ok(answer)
    }
}
