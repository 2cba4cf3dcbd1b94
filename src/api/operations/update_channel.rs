//! UpdateChannel: another name, other destinations, or both; its source stays.

use serde::Deserialize;

use crate::api::channel::{Settings, check_destinations, check_name, found, not_found, resource};
use crate::api::{Call, Error, Operation};
use crate::registry::Destination;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateChannel {
    #[serde(default)]
    channel: String,
    destinations: Option<Vec<Destination>>,
    name: Option<String>,
}

impl Operation for UpdateChannel {
    const NAME: &'static str = "UpdateChannel";
    type Answer = Settings;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![resource(&self.channel, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Settings, Error> {
        let arn = found(call, &self.channel)?.arn();
        let Self {
            channel: _,
            destinations,
            name,
        } = self;
        if let Some(name) = &name {
            check_name(name)?;
        }
        if let Some(destinations) = &destinations {
            check_destinations(destinations, call.caller.account)?;
        }
        let changed = call.home.registry.change(move |book| {
            let channel = book.channels.get_mut(&arn).ok_or_else(|| not_found(&arn))?;
            if let Some(name) = name {
                channel.name = name;
            }
            if let Some(destinations) = destinations {
                channel.destinations = destinations;
            }
            let changed = channel.clone();
            book.channels.has_name(&changed)?;
            Ok::<_, Error>(Settings::new(&changed))
        });
        changed.await
    }
}
