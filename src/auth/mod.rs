//! Who asks, and what they may.
//!
//! ```text
//!  request ─► Door::admit ─► Caller { account, region, principal } ─► Caller::authorize(action, resource)
//!               │ sigv4: is it signed by whom it says                    │ policy: does its document allow it
//!               └► Signed body: the rest of the proof, read with the body
//! ```
//!
//! With `mode = "none"` nothing is verified and everything is allowed: the account is the one that an access key of twelve digits in the
//! request's SigV4 scope names, else the home account, the region the scope's, else the home region.
//!
//! With `mode = "sigv4"` a request is signed with one of the configured credentials, or it is refused. The account is the credential's. A process at the
//! unix socket need not sign: the socket's mode decides who may connect, and the kernel says who did. It speaks for the home account and may
//! do everything, as root of an account may; when it signs all the same, it is held to its signature and its policy.
//!
//! Where clients show certificates ([`crate::server::tls`]), one that is known is a principal as a credential is: it need not sign, its account and policy
//! are those that are given for it. When it signs all the same, it is held to its signature. An unknown one must sign, and with `mode = "none"` it
//! is refused if any are known; if none are, every certificate is let in as whoever is not asked.
//!
//! # What is asked of a policy
//!
//! | action | resource |
//! |---|---|
//! | `cloudtrail:<Operation>`, `organizations:DescribeOrganization` | the ARN of the trail or channel that is named, else `*` |
//! | `cloudtrail-data:PutAuditEvents` | the ARN of the channel, whose own policy is asked, too |
//! | `traild:PutEvents`, `traild:PutKubernetesAudit` | `arn:aws:traild:<region of the request>:<account of the events>:events` |
//! | `traild:GetStatus` | `arn:aws:traild:<home region>:<home account>:status` |
//!
//! Without a policy a credential may do everything in its own account, and nothing in another. With one, it may do what the document allows.
//! See [`policy`] for the elements, operators and keys that are understood; a document with others does not start.

pub mod policy;
pub mod sigv4;

mod body;
mod caller;
mod certificates;
mod door;
mod keyring;
mod refusal;
mod secret;

pub use body::{Pending, SignedBody, Verdict};
pub use caller::{AtResource, Caller, Denied, Principal};
pub use certificates::{CertificateName, KnownCertificate};
pub use door::{Admitted, Door};
pub use keyring::Credential;
pub use refusal::{Protocol, refusal};
pub use secret::SecretKey;

use policy::Actions;
pub use policy::ResourcePolicy;

/// The actions of traild's own paths.
pub const PUT_EVENTS: &str = "traild:PutEvents";
pub const PUT_KUBERNETES_AUDIT: &str = "traild:PutKubernetesAudit";
pub const GET_STATUS: &str = "traild:GetStatus";

/// Of the API that takes what comes by channels.
pub const PUT_AUDIT_EVENTS: &str = "cloudtrail-data:PutAuditEvents";

/// What requests by channels are signed for.
pub const CLOUDTRAIL_DATA: &str = "cloudtrail-data";

/// What requests to traild's own paths are signed for.
pub const TRAILD: &str = "traild";

/// Actions that belong to paths, not to the API of CloudTrail.
pub const OF_PATHS: [Actions<'static>; 2] = [
    Actions {
        service: "traild",
        names: &["PutEvents", "PutKubernetesAudit", "GetStatus"],
    },
    Actions {
        service: "cloudtrail-data",
        names: &["PutAuditEvents"],
    },
];

/// How requests are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Options {
    /// Not at all.
    None,
    /// By these credentials, of distinct access keys.
    SigV4(Vec<Credential>),
}
