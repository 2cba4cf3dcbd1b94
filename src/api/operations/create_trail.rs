//! CreateTrail: a trail of the caller's account, at home in the region of the request. It records nothing before StartLogging.
//!
//! Where the API reference states no default, IncludeGlobalServiceEvents is true. A new trail selects management events, reads and writes.

use serde::Deserialize;

use crate::api::given::Given;
use crate::api::trail::{Settings, resource};
use crate::api::{Call, Error, Operation, preflight, tags};
use crate::event::refusal::shown;
use crate::registry::book::NOT_STARTED;
use crate::registry::{Entry, KeptBy, Tag};
use crate::trail::selector::spec::EventSelector;
use crate::trail::{Accounts, Selectors, Trail, TrailName};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateTrail {
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    given: Given,
    tags_list: Option<Vec<Tag>>,
}

impl Operation for CreateTrail {
    const NAME: &'static str = "CreateTrail";
    type Answer = Settings;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Settings, Error> {
        let Self {
            name,
            given,
            tags_list,
        } = self;
        let name = name.parse().map_err(|reason| Error::InvalidTrailName {
            given: shown(name.as_bytes(), 128),
            reason,
        })?;
        let mut entry = Entry::new(new(name, call)?, KeptBy::Api);
        let anew = given.with_bucket().apply(&mut entry, call)?;
        let given_tags = tags::checked(tags_list.unwrap_or_default())?;
        tags::add(&mut entry.tags, given_tags)?;

        let registry = &call.home.registry;
        registry.book().has_room(&entry)?;
        preflight::check(&*call.home.preflight, &entry.trail, anew).await?;
        let answer = Settings::new(&entry);
        let created = registry.change(move |book| Ok::<_, Error>(book.create(entry)?));
        created.await?;
        tracing::info!(trail = answer.trail_arn, "trail created");
        Ok(answer)
    }
}

/// A trail that nothing is said of but its name.
fn new(name: TrailName, call: &Call<'_>) -> Result<Trail, Error> {
    Ok(Trail {
        name,
        home_account: call.caller.account,
        home_region: call.region,
        accounts: Accounts::Own,
        is_multi_region: false,
        include_global_service_events: true,
        bucket: String::new(),
        prefix: String::new(),
        kms_key_id: None,
        topic: None,
        log_group: None,
        event_bus: None,
        log_file_validation: false,
        logging: NOT_STARTED,
        selectors: Selectors::basic(vec![EventSelector::default()])?,
    })
}
