//! The condition keys that traild has (IAM user guide, "AWS global condition context keys").

use std::borrow::Cow;
use std::net::IpAddr;

use super::Asked;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Of the connection; none at the unix socket.
    SourceIp,
    CurrentTime,
    EpochTime,
    PrincipalArn,
    PrincipalAccount,
    PrincipalType,
    /// The access key, as credentials have no other name; of a client certificate the name it is given.
    Username,
    /// Whether the connection has TLS. False behind a proxy, where TLS ends.
    SecureTransport,
    /// Of the request's scope.
    RequestedRegion,
    /// The account that is asked about: of the resource, or of the events that are sent.
    Account,
    /// What PutAuditEvents is given as `externalId`.
    ExternalId,
}

/// What values of a key are. Text can be asked of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Arn,
    Ip,
    Truth,
    Time,
}

const KEYS: [(&str, Key); 12] = [
    ("aws:SourceIp", Key::SourceIp),
    ("aws:CurrentTime", Key::CurrentTime),
    ("aws:EpochTime", Key::EpochTime),
    ("aws:PrincipalArn", Key::PrincipalArn),
    ("aws:PrincipalAccount", Key::PrincipalAccount),
    ("aws:PrincipalType", Key::PrincipalType),
    ("aws:username", Key::Username),
    ("aws:SecureTransport", Key::SecureTransport),
    ("aws:RequestedRegion", Key::RequestedRegion),
    ("aws:ResourceAccount", Key::Account),
    ("traild:account", Key::Account),
    ("cloudtrail:ExternalId", Key::ExternalId),
];

impl Key {
    /// Names of keys have no case.
    pub fn named(name: &str) -> Option<Self> {
        let found = KEYS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, key)| *key)
    }

    /// For a hint.
    pub fn list() -> String {
        let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
        format!("it has {}", names.join(", "))
    }

    pub fn kind(self) -> Kind {
        match self {
            Self::SourceIp => Kind::Ip,
            Self::CurrentTime | Self::EpochTime => Kind::Time,
            Self::PrincipalArn => Kind::Arn,
            Self::SecureTransport => Kind::Truth,
            Self::PrincipalAccount
            | Self::PrincipalType
            | Self::Username
            | Self::RequestedRegion
            | Self::Account
            | Self::ExternalId => Kind::Text,
        }
    }

    /// What the request has for it, as text; nothing when it has none.
    pub fn text<'a>(self, asked: &'a Asked<'_>) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::SourceIp => asked.caller.source_ip?.to_string().into(),
            Self::CurrentTime => asked.now.rfc3339().into(),
            Self::EpochTime => asked.now.unix_seconds().to_string().into(),
            Self::PrincipalArn => asked.principal_arn.into(),
            Self::PrincipalAccount => asked.caller.account.as_str().into(),
            Self::PrincipalType => "User".into(),
            Self::Username => asked.caller.user_name()?,
            Self::SecureTransport => asked.caller.tls.is_some().to_string().into(),
            Self::RequestedRegion => asked.caller.region.as_str().into(),
            Self::Account => asked.account.as_str().into(),
            Self::ExternalId => asked.external_id?.into(),
        })
    }

    pub fn ip(self, asked: &Asked<'_>) -> Option<IpAddr> {
        asked.caller.source_ip.filter(|_| self == Self::SourceIp)
    }
}
