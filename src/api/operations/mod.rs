//! The operations: those that traild has, and the names of all that CloudTrail has.

mod add_tags;
mod create_channel;
mod create_trail;
mod delete_channel;
mod delete_resource_policy;
mod delete_trail;
mod describe_organization;
mod describe_trails;
mod get_channel;
mod get_event_selectors;
mod get_insight_selectors;
mod get_resource_policy;
mod get_trail;
mod get_trail_status;
mod list_channels;
mod list_public_keys;
mod list_tags;
mod list_trails;
mod lookup_events;
mod put_event_selectors;
mod put_insight_selectors;
mod put_resource_policy;
mod remove_tags;
mod start_logging;
mod stop_logging;
mod update_channel;
mod update_trail;

use super::protocol::{self, Service, Target};
use super::{Call, Error, Operation};

pub use add_tags::AddTags;
pub use create_channel::CreateChannel;
pub use create_trail::CreateTrail;
pub use delete_channel::DeleteChannel;
pub use delete_resource_policy::DeleteResourcePolicy;
pub use delete_trail::DeleteTrail;
pub use describe_organization::DescribeOrganization;
pub use describe_trails::DescribeTrails;
pub use get_channel::GetChannel;
pub use get_event_selectors::GetEventSelectors;
pub use get_insight_selectors::GetInsightSelectors;
pub use get_resource_policy::GetResourcePolicy;
pub use get_trail::GetTrail;
pub use get_trail_status::GetTrailStatus;
pub use list_channels::ListChannels;
pub use list_public_keys::ListPublicKeys;
pub use list_tags::ListTags;
pub use list_trails::ListTrails;
pub use lookup_events::LookupEvents;
pub use put_event_selectors::PutEventSelectors;
pub use put_insight_selectors::PutInsightSelectors;
pub use put_resource_policy::PutResourcePolicy;
pub use remove_tags::RemoveTags;
pub use start_logging::StartLogging;
pub use stop_logging::StopLogging;
pub use update_channel::UpdateChannel;
pub use update_trail::UpdateTrail;

/// Runs what `target` asks for: the JSON of its answer.
pub async fn run(target: Target<'_>, body: &[u8], call: &Call<'_>) -> Result<Vec<u8>, Error> {
    use Service::{CloudTrail, Organizations};
    match (target.service, target.operation) {
        (CloudTrail, AddTags::NAME) => answer::<AddTags>(target.service, body, call).await,
        (CloudTrail, CreateChannel::NAME) => {
            answer::<CreateChannel>(target.service, body, call).await
        }
        (CloudTrail, CreateTrail::NAME) => answer::<CreateTrail>(target.service, body, call).await,
        (CloudTrail, DeleteChannel::NAME) => {
            answer::<DeleteChannel>(target.service, body, call).await
        }
        (CloudTrail, DeleteResourcePolicy::NAME) => {
            answer::<DeleteResourcePolicy>(target.service, body, call).await
        }
        (CloudTrail, DeleteTrail::NAME) => answer::<DeleteTrail>(target.service, body, call).await,
        (CloudTrail, DescribeTrails::NAME) => {
            answer::<DescribeTrails>(target.service, body, call).await
        }
        (CloudTrail, GetChannel::NAME) => answer::<GetChannel>(target.service, body, call).await,
        (CloudTrail, GetEventSelectors::NAME) => {
            answer::<GetEventSelectors>(target.service, body, call).await
        }
        (CloudTrail, GetInsightSelectors::NAME) => {
            answer::<GetInsightSelectors>(target.service, body, call).await
        }
        (CloudTrail, GetResourcePolicy::NAME) => {
            answer::<GetResourcePolicy>(target.service, body, call).await
        }
        (CloudTrail, GetTrail::NAME) => answer::<GetTrail>(target.service, body, call).await,
        (CloudTrail, GetTrailStatus::NAME) => {
            answer::<GetTrailStatus>(target.service, body, call).await
        }
        (CloudTrail, ListChannels::NAME) => {
            answer::<ListChannels>(target.service, body, call).await
        }
        (CloudTrail, ListPublicKeys::NAME) => {
            answer::<ListPublicKeys>(target.service, body, call).await
        }
        (CloudTrail, ListTags::NAME) => answer::<ListTags>(target.service, body, call).await,
        (CloudTrail, ListTrails::NAME) => answer::<ListTrails>(target.service, body, call).await,
        (CloudTrail, LookupEvents::NAME) => {
            answer::<LookupEvents>(target.service, body, call).await
        }
        (CloudTrail, PutEventSelectors::NAME) => {
            answer::<PutEventSelectors>(target.service, body, call).await
        }
        (CloudTrail, PutInsightSelectors::NAME) => {
            answer::<PutInsightSelectors>(target.service, body, call).await
        }
        (CloudTrail, PutResourcePolicy::NAME) => {
            answer::<PutResourcePolicy>(target.service, body, call).await
        }
        (CloudTrail, RemoveTags::NAME) => answer::<RemoveTags>(target.service, body, call).await,
        (CloudTrail, StartLogging::NAME) => {
            answer::<StartLogging>(target.service, body, call).await
        }
        (CloudTrail, StopLogging::NAME) => answer::<StopLogging>(target.service, body, call).await,
        (CloudTrail, UpdateChannel::NAME) => {
            answer::<UpdateChannel>(target.service, body, call).await
        }
        (CloudTrail, UpdateTrail::NAME) => answer::<UpdateTrail>(target.service, body, call).await,
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
