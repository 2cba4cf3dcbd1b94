//! StartLogging: from now on the trail records. Asked again, it changes nothing.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartLogging {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize)]
pub struct Answer {}

impl Operation for StartLogging {
    const NAME: &'static str = "StartLogging";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let (now, journal) = (call.now, call.home.journal.clone());
        let changed = trail::change(call, &self.name, move |entry| {
            Ok(entry.start(&journal(), now)?)
        });
        changed.await?;
        Ok(Answer {})
    }
}
