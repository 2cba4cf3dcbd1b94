//! ListTags: the tags of up to 20 trails and channels, named by their ARNs. All come in one answer.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, tags, trail};
use crate::registry::Tag;

/// API reference, ListTags, `ResourceIdList`.
const MAX_RESOURCES: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTags {
    #[serde(default)]
    resource_id_list: Vec<String>,
    /// "Reserved for future use."
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    resource_tag_list: Vec<ResourceTag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ResourceTag {
    resource_id: String,
    tags_list: Vec<Tag>,
}

impl Operation for ListTags {
    const NAME: &'static str = "ListTags";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        let given = self.resource_id_list.iter();
        given.map(|given| trail::resource(given, call)).collect()
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        if self.next_token.is_some() {
            return Err(Error::InvalidToken);
        }
        let asked = self.resource_id_list.len();
        if asked > MAX_RESOURCES {
            return Err(Error::InvalidParameter(format!(
                "ResourceIdList has at most {MAX_RESOURCES} ARNs, given: {asked}"
            )));
        }
        let list = self.resource_id_list.into_iter().map(|resource_id| {
            let tagged = tags::resource(call, &resource_id).map_err(|error| match error {
                // The operation has no error of its own for it.
                Error::ChannelNotFound(arn) => Error::ResourceNotFound(arn),
                error => error,
            })?;
            Ok(ResourceTag {
                resource_id,
                tags_list: tagged.tags().to_vec(),
            })
        });
        Ok(Answer {
            resource_tag_list: list.collect::<Result<_, Error>>()?,
        })
    }
}
