//! ListTrails: the trails of the caller's account, of every region, in the order of their ARNs.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, token};

/// Trails of one answer.
const PAGE: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTrails {
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    trails: Vec<Info>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(rename = "TrailARN")]
    trail_arn: String,
    name: String,
    home_region: String,
}

impl Operation for ListTrails {
    const NAME: &'static str = "ListTrails";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let asked = [Self::NAME, call.caller.account.as_str()];
        let last = match &self.next_token {
            None => String::new(),
            Some(token) => token::read(&asked, token)?,
        };
        let book = call.home.registry.book();
        let own = book
            .trails()
            .map(|entry| &entry.trail)
            .filter(|trail| trail.home_account == call.caller.account);
        let own = own.map(|trail| Info {
            trail_arn: trail.arn(),
            name: trail.name.to_string(),
            home_region: trail.home_region.to_string(),
        });
        let (trails, next_token) = token::page(own, |info| &info.trail_arn, &asked, &last, PAGE);
        Ok(Answer { trails, next_token })
    }
}
