//! GetTrail: one trail, by its name at home, by its ARN from everywhere.

use serde::{Deserialize, Serialize};

use crate::api::trail::{self, Described};
use crate::api::{Call, Error, Operation};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetTrail {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    trail: Described,
}

impl Operation for GetTrail {
    const NAME: &'static str = "GetTrail";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let entry = trail::found(call, &self.name)?;
        Ok(Answer {
            trail: Described::new(&entry),
        })
    }
}
