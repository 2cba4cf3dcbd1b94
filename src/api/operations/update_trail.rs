//! UpdateTrail: sets a trail to something else. What was sealed before stays where it belongs; what is delivered from now on goes by the new settings.
//!
//! Two requests that change one trail at the same time: the one that comes second is refused, as it was checked against what was.

use serde::Deserialize;

use crate::api::given::Given;
use crate::api::trail::{self, Settings};
use crate::api::{Call, Error, Operation, preflight};
use crate::registry::Entry;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateTrail {
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    given: Given,
}

impl Operation for UpdateTrail {
    const NAME: &'static str = "UpdateTrail";
    type Answer = Settings;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Settings, Error> {
        let before = trail::changeable(call, &self.name)?;
        let mut after = Entry::clone(&before);
        let anew = self.given.apply(&mut after, call)?;
        preflight::check(&*call.home.preflight, &after.trail, anew).await?;
        let answer = Settings::new(&after);
        let checked = before.clone();
        let changed = trail::change_entry(call, &before, move |entry| {
            if *entry != *checked {
                return Err(Error::Conflict(entry.trail.arn()));
            }
            *entry = after;
            Ok(())
        });
        changed.await?;
        Ok(answer)
    }
}
