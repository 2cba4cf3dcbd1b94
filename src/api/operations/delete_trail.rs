//! DeleteTrail: what the trail has recorded is still delivered, and its objects stay.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteTrail {
    #[serde(default)]
    name: String,
}

impl Operation for DeleteTrail {
    const NAME: &'static str = "DeleteTrail";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let (account, now, journal) = (call.caller.account, call.now, call.home.journal.clone());
        let arn = trail::changeable(call, &self.name)?.trail.arn();
        let deleted = arn.clone();
        let change = call.home.registry.change(move |book| {
            if book.trail_mut(&arn).is_none() {
                return Err(trail::not_found(account, &arn));
            }
            book.delete(&arn, &journal(), now);
            Ok(())
        });
        change.await?;
        tracing::info!(trail = deleted, "trail deleted");
        Ok(Empty {})
    }
}
