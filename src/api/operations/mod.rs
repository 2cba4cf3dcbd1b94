//! The operations: those that traild has, and the names of all that CloudTrail has.

mod describe_organization;
mod describe_trails;
mod list_public_keys;

use super::protocol::{self, Service, Target};
use super::{Call, Error, Operation};

pub use describe_organization::DescribeOrganization;
pub use describe_trails::DescribeTrails;
pub use list_public_keys::ListPublicKeys;

/// Runs what `target` asks for: the JSON of its answer.
pub async fn run(target: Target<'_>, body: &[u8], call: &Call<'_>) -> Result<Vec<u8>, Error> {
    use Service::{CloudTrail, Organizations};
    match (target.service, target.operation) {
        (CloudTrail, DescribeTrails::NAME) => {
            answer::<DescribeTrails>(target.service, body, call).await
        }
        (CloudTrail, ListPublicKeys::NAME) => {
            answer::<ListPublicKeys>(target.service, body, call).await
        }
        (CloudTrail, other) => match OF_CLOUDTRAIL.iter().find(|name| **name == other) {
            Some(name) => Err(Error::UnsupportedOperation(name)),
            None => Err(target.unknown()),
        },
        (Organizations, DescribeOrganization::NAME) => {
            answer::<DescribeOrganization>(target.service, body, call).await
        }
        (Organizations, _) => Err(target.unknown()),
    }
}

async fn answer<O: Operation>(
    service: Service,
    body: &[u8],
    call: &Call<'_>,
) -> Result<Vec<u8>, Error> {
    let request = protocol::request::<O>(body)?;
    let action = format!("{}:{}", service.signing_name(), O::NAME);
    for resource in request.resources(call) {
        call.caller.authorize(&action, &resource, call.now)?;
    }
    let answer = request.run(call).await?;
    Ok(serde_json::to_vec(&answer)?)
}

/// Every operation of CloudTrail's API, version 2013-11-01 (API reference, "Actions").
pub const OF_CLOUDTRAIL: [&str; 60] = [
    "AddTags",
    "CancelQuery",
    "CreateChannel",
    "CreateDashboard",
    "CreateEventDataStore",
    "CreateTrail",
    "DeleteChannel",
    "DeleteDashboard",
    "DeleteEventDataStore",
    "DeleteResourcePolicy",
    "DeleteTrail",
    "DeregisterOrganizationDelegatedAdmin",
    "DescribeQuery",
    "DescribeTrails",
    "DisableFederation",
    "EnableFederation",
    "GenerateQuery",
    "GetChannel",
    "GetDashboard",
    "GetEventConfiguration",
    "GetEventDataStore",
    "GetEventSelectors",
    "GetImport",
    "GetInsightSelectors",
    "GetQueryResults",
    "GetResourcePolicy",
    "GetTrail",
    "GetTrailStatus",
    "ListChannels",
    "ListDashboards",
    "ListEventDataStores",
    "ListImportFailures",
    "ListImports",
    "ListInsightsData",
    "ListInsightsMetricData",
    "ListPublicKeys",
    "ListQueries",
    "ListTags",
    "ListTrails",
    "LookupEvents",
    "PutEventConfiguration",
    "PutEventSelectors",
    "PutInsightSelectors",
    "PutResourcePolicy",
    "RegisterOrganizationDelegatedAdmin",
    "RemoveTags",
    "RestoreEventDataStore",
    "SearchSampleQueries",
    "StartDashboardRefresh",
    "StartEventDataStoreIngestion",
    "StartImport",
    "StartLogging",
    "StartQuery",
    "StopEventDataStoreIngestion",
    "StopImport",
    "StopLogging",
    "UpdateChannel",
    "UpdateDashboard",
    "UpdateEventDataStore",
    "UpdateTrail",
];
