//! StopLogging: what is accepted from now on is not recorded; what was accepted before is still delivered. Asked again, it changes nothing.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StopLogging {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize)]
pub struct Answer {}

impl Operation for StopLogging {
    const NAME: &'static str = "StopLogging";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let (now, journal) = (call.now, call.home.journal.clone());
        let changed = trail::change(call, &self.name, move |entry| {
            entry.stop(&journal(), now);
            Ok(())
        });
        changed.await?;
        Ok(Answer {})
    }
}
