//! DeleteTrail: what the trail has recorded is still delivered, and its objects stay.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteTrail {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize)]
pub struct Answer {}

impl Operation for DeleteTrail {
    const NAME: &'static str = "DeleteTrail";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let (account, now, journal) = (call.account, call.now, call.home.journal.clone());
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
        Ok(Answer {})
    }
}
