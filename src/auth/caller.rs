//! Who asks.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::policy::{Asked, Decision, Policy, ResourcePolicy};
use crate::clock::WallMillis;
use crate::event::{AccountId, Region};
use crate::server::tls::Secured;

/// Whoever makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub account: AccountId,
    /// Where the caller believes to be.
    pub region: Region,
    pub principal: Principal,
    /// As signed with; with `mode = "none"` as said.
    pub access_key_id: Option<Arc<str>>,
    /// Nothing for a process of this machine at the unix socket.
    pub source_ip: Option<IpAddr>,
    /// Of the connection, when it has any.
    pub tls: Option<Arc<Secured>>,
    pub(super) rights: Rights,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody was asked who they are: whoever asks is the account.
    Account,
    /// The owner of the access key.
    User,
    /// The owner of a client certificate that is known, by the name it is given here.
    Certificate { user_name: Arc<str> },
    /// A process at the unix socket, by the user it runs as.
    Process { uid: u32 },
}

#[derive(Debug, Clone)]
pub(super) enum Rights {
    Everything,
    OwnAccount,
    By(Arc<Policy>),
}

/// What a caller may not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Denied {
    pub principal_arn: String,
    pub action: String,
    pub resource: String,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    OtherAccount,
    NotAllowed,
    Explicit,
    NotAllowedByResource,
    ExplicitByResource,
}

/// In the words of AWS (IAM user guide, "Troubleshoot access denied error messages").
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            principal_arn,
            action,
            resource,
            reason,
        } = self;
        write!(
            f,
            "User: {principal_arn} is not authorized to perform: {action} on resource: {resource} "
        )?;
        match reason {
            Reason::OtherAccount => write!(
                f,
                "because it is of another account and no identity-based policy allows the {action} action there"
            ),
            Reason::NotAllowed => {
                write!(
                    f,
                    "because no identity-based policy allows the {action} action"
                )
            }
            Reason::Explicit => write!(f, "with an explicit deny in an identity-based policy"),
            Reason::NotAllowedByResource => write!(
                f,
                "because no resource-based policy allows the {action} action"
            ),
            Reason::ExplicitByResource => {
                write!(f, "with an explicit deny in a resource-based policy")
            }
        }
    }
}

impl Denied {
    /// Whether the resource does not let the caller in, whatever they may do otherwise.
    pub fn is_by_resource(&self) -> bool {
        matches!(
            self.reason,
            Reason::NotAllowedByResource | Reason::ExplicitByResource
        )
    }
}

/// What the owner of a resource has to say.
#[derive(Debug, Clone, Copy)]
pub struct AtResource<'a> {
    pub owner: AccountId,
    pub policy: Option<&'a ResourcePolicy>,
    pub external_id: Option<&'a str>,
}

impl Caller {
    /// The access key of who signs, the name of a known certificate, `uid-1000` at the unix socket. Nobody else has one.
    pub fn user_name(&self) -> Option<Cow<'_, str>> {
        match &self.principal {
            Principal::Account => None,
            Principal::User => self.access_key_id.as_deref().map(Cow::from),
            Principal::Certificate { user_name } => Some(Cow::from(&**user_name)),
            Principal::Process { uid } => Some(Cow::from(format!("uid-{uid}"))),
        }
    }

    /// `arn:aws:iam::111122223333:user/AKIDEXAMPLE`; `…:root` for whoever is not asked who they are.
    pub fn principal_arn(&self) -> String {
        let account = self.account;
        match self.user_name() {
            Some(name) => format!("arn:aws:iam::{account}:user/{name}"),
            None => format!("arn:aws:iam::{account}:root"),
        }
    }

    /// Whether the caller may do `action` (as `cloudtrail:GetTrail`) to `resource`: an ARN, or `*` for an action that is about none.
    pub fn authorize(&self, action: &str, resource: &str, now: WallMillis) -> Result<(), Denied> {
        // An ARN without an account, and what is no ARN, is the caller's own.
        let account = resource
            .split(':')
            .nth(4)
            .and_then(|account| account.parse().ok());
        let account = account.unwrap_or(self.account);
        let is_own = account == self.account;
        let decision = match &self.rights {
            Rights::Everything => return Ok(()),
            Rights::OwnAccount if is_own => return Ok(()),
            Rights::OwnAccount => Decision::NotAllowed,
            Rights::By(policy) => policy.decide(&Asked {
                action,
                resource,
                account,
                now,
                caller: self,
                principal_arn: &self.principal_arn(),
                external_id: None,
            }),
        };
        let reason = match decision {
            Decision::Allowed => return Ok(()),
            Decision::Denied => Reason::Explicit,
            Decision::NotAllowed if is_own => Reason::NotAllowed,
            Decision::NotAllowed => Reason::OtherAccount,
        };
        Err(self.denied(action, resource, reason))
    }

    /// The same for a resource that has, or could have, a policy of its own. A caller of another account needs both sides to allow it, one of the
    /// owner's own either; whoever denies, wins (IAM user guide, "Policy evaluation logic"). Who may do everything in their own account is held
    /// by the owner's policy alone.
    pub fn authorize_at(
        &self,
        action: &str,
        resource: &str,
        at: AtResource<'_>,
        now: WallMillis,
    ) -> Result<(), Denied> {
        let AtResource {
            owner,
            policy,
            external_id,
        } = at;
        let principal_arn = self.principal_arn();
        let asked = Asked {
            action,
            resource,
            account: owner,
            now,
            caller: self,
            principal_arn: &principal_arn,
            external_id,
        };
        let by_resource = policy.map_or(Decision::NotAllowed, |policy| policy.decide(&asked));
        let own = match &self.rights {
            Rights::Everything | Rights::OwnAccount => Decision::Allowed,
            Rights::By(policy) => policy.decide(&asked),
        };
        let is_own = owner == self.account;
        let reason = match (own, by_resource) {
            (_, Decision::Denied) => Reason::ExplicitByResource,
            (Decision::Denied, _) => Reason::Explicit,
            (Decision::Allowed, Decision::Allowed) => return Ok(()),
            (Decision::Allowed, _) | (_, Decision::Allowed) if is_own => return Ok(()),
            (Decision::Allowed, Decision::NotAllowed) => Reason::NotAllowedByResource,
            (Decision::NotAllowed, Decision::NotAllowed) if is_own => Reason::NotAllowed,
            (Decision::NotAllowed, _) => Reason::OtherAccount,
        };
        Err(self.denied(action, resource, reason))
    }

    fn denied(&self, action: &str, resource: &str, reason: Reason) -> Denied {
        Denied {
            principal_arn: self.principal_arn(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            reason,
        }
    }

    /// Whether anything would be denied: without that, asking for each account of a request can be spared.
    pub fn may_do_everything(&self) -> bool {
        matches!(self.rights, Rights::Everything)
    }
}
