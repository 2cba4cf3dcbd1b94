//! RemoveTags: takes tags from a trail or a channel, which is named by its ARN. One that is not there is no mistake.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, tags, trail};
use crate::registry::Tag;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RemoveTags {
    #[serde(default)]
    resource_id: String,
    #[serde(default)]
    tags_list: Vec<Tag>,
}

impl Operation for RemoveTags {
    const NAME: &'static str = "RemoveTags";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.resource_id, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let tagged = tags::resource(call, &self.resource_id)?;
        let keys = tags::checked_keys(self.tags_list)?;
        let changed = tagged.change(call, move |tags| {
            tags.retain(|tag| !keys.contains(&tag.key));
            Ok(())
        });
        changed.await?;
        Ok(Empty {})
    }
}
