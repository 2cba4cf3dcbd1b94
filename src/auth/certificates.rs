//! The client certificates that are principals.
//!
//! An authority vouches for a certificate at the handshake ([`crate::server::tls`]); which account it is of, and what it may do, is said here, by one of its
//! names. A SPIFFE workload has its identity in a URI (SPIFFE, "X.509-SVID"), a service of Kubernetes with a certificate of cert-manager in DNS names, a
//! user of Kubernetes in the common name. DNS names are compared without case (RFC 4343), the others byte for byte; nothing has wildcards.

use std::fmt;
use std::sync::Arc;

use super::policy::Policy;
use crate::event::AccountId;
use crate::server::certificate::Names;

/// A principal that shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCertificate {
    pub name: CertificateName,
    /// As IAM would have it, with a path or without: what stands behind `user/` in the principal's ARN.
    pub user_name: Arc<str>,
    pub account: AccountId,
    /// `None`: everything in its own account.
    pub policy: Option<Arc<Policy>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    Uri(String),
    Dns(String),
    CommonName(String),
}

impl CertificateName {
    fn is_of(&self, names: &Names) -> bool {
        match self {
            Self::Uri(uri) => names.uris.contains(uri),
            Self::Dns(name) => names.dns.iter().any(|it| it.eq_ignore_ascii_case(name)),
            Self::CommonName(name) => names.common_name.as_ref() == Some(name),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Uri(name) | Self::Dns(name) | Self::CommonName(name)) = self;
        f.write_str(name)
    }
}

/// The first of `known` that one of these names is of.
pub(super) fn find<'a>(
    known: &'a [KnownCertificate],
    names: &Names,
) -> Option<&'a KnownCertificate> {
    known.iter().find(|known| known.name.is_of(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_known_by_one_of_its_names_and_by_the_kind_of_it() {
        let names = Names {
            common_name: Some("collector".to_owned()),
            dns: vec!["collector.audit.svc".to_owned(), "*.example.org".to_owned()],
            uris: vec!["spiffe://example.org/ns/audit/sa/collector".to_owned()],
        };
        let uri = |name: &str| CertificateName::Uri(name.to_owned());
        let dns = |name: &str| CertificateName::Dns(name.to_owned());
        let common_name = |name: &str| CertificateName::CommonName(name.to_owned());
        for (name, known) in [
            (uri("spiffe://example.org/ns/audit/sa/collector"), true),
            (uri("spiffe://example.org/ns/audit/sa/Collector"), false),
            (uri("spiffe://example.org/ns/audit/sa"), false),
            (uri("collector"), false),
            (dns("Collector.Audit.svc"), true),
            (dns("a.example.org"), false),
            (dns("collector"), false),
            (common_name("collector"), true),
            (common_name("Collector"), false),
            (common_name("collector.audit.svc"), false),
        ] {
            assert_eq!(name.is_of(&names), known, "{name:?}");
            assert!(!name.is_of(&Names::default()), "{name:?}");
        }
    }
}
