//! Where requests come in: from the head of a request to its caller.

use std::sync::Arc;

use http::{HeaderMap, header, request};

use super::caller::{Caller, Principal, Rights};
use super::certificates::{self, KnownCertificate};
use super::keyring::{Credential, Keyring};
use super::policy::Policy;
use super::sigv4::{Claim, Expected, Refused, Rules};
use super::{Options, body::Pending};
use crate::clock::WallMillis;
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::server::Peer;

/// Admits requests. Clones share it.
#[derive(Debug, Clone)]
pub struct Door {
    home_account: AccountId,
    home_region: Region,
    /// `None`: nobody signs.
    keyring: Option<Arc<Keyring>>,
    certificates: Arc<[KnownCertificate]>,
}

/// A caller, as far as the head of the request shows.
#[derive(Debug)]
pub struct Admitted {
    pub caller: Caller,
    /// What the body has to prove yet; nothing when nothing is verified. Until it has, nothing may be done or told for this caller.
    pub pending: Option<Pending>,
}

impl Door {
    /// `certificates` are those that are principals.
    pub fn new(
        home_account: AccountId,
        home_region: Region,
        options: Options,
        certificates: Vec<KnownCertificate>,
    ) -> Self {
        let keyring = match options {
            Options::None => None,
            Options::SigV4(credentials) => Some(Arc::new(Keyring::new(credentials))),
        };
        Self {
            home_account,
            home_region,
            keyring,
            certificates: certificates.into(),
        }
    }

    /// `service` is the signing name of what is asked.
    pub fn admit(
        &self,
        head: &request::Parts,
        peer: &Peer,
        service: &str,
        now: WallMillis,
    ) -> Result<Admitted, Refused> {
        let known = self.known(peer);
        let Some(keyring) = &self.keyring else {
            return match known {
                Shown::Unknown if !self.certificates.is_empty() => Err(Refused::UnknownCertificate),
                _ => self.believe(&head.headers, peer, known),
            };
        };
        let claim = match (Claim::of(head), peer, known) {
            (Err(Refused::Missing), Peer::Unix { .. }, _)
            | (Err(Refused::Missing), _, Shown::Known(_)) => {
                return self.believe(&head.headers, peer, known);
            }
            (claim, ..) => claim?,
        };
        let region = claim.check(&head.headers, &Rules { service, now })?;
        let credential = keyring.find(&claim.access_key_id, claim.session_token.as_deref());
        let credential = credential.ok_or(Refused::UnknownKey)?;
        let key = keyring.keys.of(&claim, &credential.secret);
        let expected = Expected::new(head, &claim, key.clone())?;
        Ok(Admitted {
            caller: user(credential, region, peer),
            pending: Some(Pending::new(expected, claim, key, Arc::clone(keyring))),
        })
    }

    /// What the client's certificate says.
    fn known(&self, peer: &Peer) -> Shown<'_> {
        let certificate = peer.tls().and_then(|tls| tls.certificate.as_ref());
        match certificate.map(|names| certificates::find(&self.certificates, names)) {
            None => Shown::None,
            Some(None) => Shown::Unknown,
            Some(Some(known)) => Shown::Known(known),
        }
    }

    /// A caller whom nobody asks for a signature.
    fn believe(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        shown_certificate: Shown<'_>,
    ) -> Result<Admitted, Refused> {
        let scope = scope(headers);
        let region = match scope {
            None => self.home_region,
            Some((_, region)) => region.parse().map_err(|_| {
                let region = shown(region.as_bytes(), 64);
                Refused::Invalid(format!(
                    "Credential should be scoped to a valid region, not '{region}'."
                ))
            })?,
        };
        let named = scope.and_then(|(access_key, _)| access_key.parse().ok());
        let named = named.unwrap_or(self.home_account);
        let (account, principal, rights) = match (shown_certificate, peer) {
            (Shown::Known(known), _) => {
                let user_name = Arc::clone(&known.user_name);
                let principal = Principal::Certificate { user_name };
                (known.account, principal, rights(known.policy.as_ref()))
            }
            (_, Peer::Unix { uid, .. }) => {
                (named, Principal::Process { uid: *uid }, Rights::Everything)
            }
            (_, Peer::Tcp(_) | Peer::Tls(..)) => (named, Principal::Account, Rights::Everything),
        };
        let caller = Caller {
            account,
            region,
            principal,
            access_key_id: scope.map(|(access_key, _)| access_key.into()),
            source_ip: source_ip(peer),
            tls: peer.tls().cloned(),
            rights,
        };
        Ok(Admitted {
            caller,
            pending: None,
        })
    }
}

/// What a client shows of itself in TLS.
#[derive(Debug, Clone, Copy)]
enum Shown<'a> {
    /// No certificate.
    None,
    /// One that is no principal here.
    Unknown,
    Known(&'a KnownCertificate),
}

fn user(credential: &Credential, region: Region, peer: &Peer) -> Caller {
    Caller {
        account: credential.account,
        region,
        principal: Principal::User,
        access_key_id: Some(credential.access_key_id.as_str().into()),
        source_ip: source_ip(peer),
        tls: peer.tls().cloned(),
        rights: rights(credential.policy.as_ref()),
    }
}

fn rights(policy: Option<&Arc<Policy>>) -> Rights {
    policy.map_or(Rights::OwnAccount, |policy| Rights::By(Arc::clone(policy)))
}

fn source_ip(peer: &Peer) -> Option<std::net::IpAddr> {
    match peer {
        Peer::Tcp(_) | Peer::Tls(..) => Some(peer.source_ip()),
        Peer::Unix { .. } => None,
    }
}

/// Access key and region of `AWS4-HMAC-SHA256 Credential=<access key>/<date>/<region>/<service>/aws4_request, …`, unverified. Nothing when
/// the header is none of SigV4, or no credential is in it.
fn scope(headers: &HeaderMap) -> Option<(&str, &str)> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let parameters = authorization
        .trim_start()
        .strip_prefix("AWS4-HMAC-SHA256")?;
    let credential = parameters
        .split(',')
        .find_map(|parameter| parameter.trim().strip_prefix("Credential="))?;
    // An access key may hold slashes, the scope behind it cannot.
    let mut from_behind = credential.trim().rsplitn(5, '/');
    let (Some("aws4_request"), Some(_service), Some(region), Some(_date), Some(access_key)) = (
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
    ) else {
        return None;
    };
    Some((access_key, region))
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
