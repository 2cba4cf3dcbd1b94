//! StartLogging: from now on the trail records. Asked again, it changes nothing.

use serde::Deserialize;

use crate::api::{Call, Empty, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartLogging {
    #[serde(default)]
    name: String,
}

impl Operation for StartLogging {
    const NAME: &'static str = "StartLogging";
    type Answer = Empty;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Empty, Error> {
        let (now, journal) = (call.now, call.home.journal.clone());
        let changed = trail::change(call, &self.name, move |entry| {
            Ok(entry.start(&journal(), now)?)
        });
        changed.await?;
        Ok(Empty {})
    }
}
