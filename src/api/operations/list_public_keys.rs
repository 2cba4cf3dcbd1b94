//! ListPublicKeys: the keys whose private halves sign digests.
//!
//! Keys of every region are listed, wherever the caller is: `validate-logs` asks in the region of its session and wants those of the region
//! it validates. It picks them by fingerprint, so that more of them do no harm.

use serde::{Deserialize, Serialize};

use crate::api::timestamp::Timestamp;
use crate::api::{Call, Error, Operation};
use crate::digest::keys::{PublicKey, TimeRange};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPublicKeys {
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    /// "Reserved for future use."
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    public_key_list: Vec<PublicKey>,
}

impl Operation for ListPublicKeys {
    const NAME: &'static str = "ListPublicKeys";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        if self.next_token.is_some() {
            return Err(Error::InvalidToken);
        }
        let seconds = |Timestamp(moment): Timestamp| moment.unix_seconds();
        let (start, end) = (self.start_time.map(seconds), self.end_time.map(seconds));
        let range = TimeRange::asked(start, end, call.now)?;
        let keys = call.home.keys.public_keys(range).await?;
        Ok(Answer {
            public_key_list: keys.into_iter().map(|(_region, key)| key).collect(),
        })
    }
}
