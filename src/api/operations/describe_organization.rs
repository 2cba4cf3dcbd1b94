//! DescribeOrganization, of AWS Organizations: `validate-logs` asks it for the `o-…` level in the keys of an organization trail.
//!
//! The organization is the one of the organization trails, its management account the home account. Traild does not know more of it: there
//! is no e-mail address. An account is in one organization only; where trails name several, this is the first one's, and the digests of the
//! others cannot be validated with the AWS CLI.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DescribeOrganization {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    organization: Organization,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Organization {
    id: String,
    arn: String,
    feature_set: &'static str,
    master_account_arn: String,
    master_account_id: String,
}

impl Operation for DescribeOrganization {
    const NAME: &'static str = "DescribeOrganization";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let master = call.home.account;
        let book = call.home.registry.book();
        let mut trails = book.trails();
        let id = trails
            .find_map(|entry| entry.trail.organization_id())
            .ok_or(Error::OrganizationsNotInUse(master))?;
        let arn = |resource: &str| format!("arn:aws:organizations::{master}:{resource}/{id}");
        Ok(Answer {
            organization: Organization {
                id: id.to_owned(),
                arn: arn("organization"),
                feature_set: "ALL",
                master_account_arn: format!("{}/{master}", arn("account")),
                master_account_id: master.to_string(),
            },
        })
    }
}
