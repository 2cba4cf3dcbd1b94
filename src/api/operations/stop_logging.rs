//! StopLogging: what is accepted from now on is not recorded; what was accepted before is still delivered. Asked again, it changes nothing.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StopLogging {
    #[serde(default)]
    name: String,
}

impl Operation for StopLogging {
    const NAME: &'static str = "StopLogging";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let (now, journal) = (call.now, call.home.journal.clone());
        let changed = trail::change(call, &self.name, move |entry| {
            entry.stop(&journal(), now);
            Ok(())
        });
        changed.await?;
        Ok(Empty {})
    }
}
