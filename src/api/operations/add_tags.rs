//! AddTags: tags of a trail or a channel, which is named by its ARN. One that is there gets its new value.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, tags, trail};
use crate::registry::Tag;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddTags {
    #[serde(default)]
    resource_id: String,
    #[serde(default)]
    tags_list: Vec<Tag>,
}

impl Operation for AddTags {
    const NAME: &'static str = "AddTags";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.resource_id, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let tagged = tags::resource(call, &self.resource_id)?;
        let new = tags::checked(self.tags_list)?;
        tagged.change(call, |tags| tags::add(tags, new)).await?;
        Ok(Empty {})
    }
}
