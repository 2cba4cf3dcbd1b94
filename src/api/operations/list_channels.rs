//! ListChannels: the channels of the caller's account in the region of the request, in the order of their ARNs.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, token};

/// API reference, ListChannels, `MaxResults`.
const MAX_PAGE: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListChannels {
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    channels: Vec<Info>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    channel_arn: String,
    name: String,
}

impl Operation for ListChannels {
    const NAME: &'static str = "ListChannels";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let page = match self.max_results {
            None => MAX_PAGE,
            Some(given) => usize::try_from(given)
                .ok()
                .filter(|given| (1..=MAX_PAGE).contains(given))
                .ok_or_else(|| {
                    Error::InvalidParameter(format!(
                        "MaxResults is 1 to {MAX_PAGE}, given: {given}"
                    ))
                })?,
        };
        let (account, region) = (call.caller.account, call.region);
        let size = page.to_string();
        let asked = [Self::NAME, account.as_str(), region.as_str(), &size];
        let last = match &self.next_token {
            None => String::new(),
            Some(token) => token::read(&asked, token).map_err(Error::InvalidNextToken)?,
        };
        let book = call.home.registry.book();
        let own = book.channels.iter();
        let own = own.filter(|channel| channel.account == account && channel.region == region);
        let own = own.map(|channel| Info {
            channel_arn: channel.arn(),
            name: channel.name.clone(),
        });
        let (channels, next_token) =
            token::page(own, |info| &info.channel_arn, &asked, &last, page);
        Ok(Answer {
            channels,
            next_token,
        })
    }
}
