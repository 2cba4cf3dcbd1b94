//! Names an event carries that end up in object keys, checked once and carried as proof.

use std::fmt;
use std::str::FromStr;

/// An AWS account: twelve ASCII digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId([u8; 12]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an account is twelve digits")]
pub struct InvalidAccount;

impl AccountId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("account: made of ASCII digits only")
    }

    pub fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let digits: [u8; 12] = text.as_bytes().try_into().map_err(|_| InvalidAccount)?;
        if digits.iter().all(u8::is_ascii_digit) {
            Ok(Self(digits))
        } else {
            Err(InvalidAccount)
        }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A region's name: 3 to 32 of `[a-z0-9-]`, a letter first, no hyphen last. Invented regions are fine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    bytes: [u8; 32],
    len: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a region is 3 to 32 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'")]
pub struct InvalidRegion;

impl Region {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)])
            .expect("region: made of ASCII only")
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, InvalidRegion> {
        let given = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let well_formed = (3..=32).contains(&given.len())
            && given.iter().all(allowed)
            && given[0].is_ascii_lowercase()
            && given[given.len() - 1] != b'-';
        if !well_formed {
            return Err(InvalidRegion);
        }
        let mut bytes = [0; 32];
        bytes[..given.len()].copy_from_slice(given);
        Ok(Self {
            bytes,
            len: u8::try_from(given.len()).map_err(|_| InvalidRegion)?,
        })
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// CloudTrail's `eventCategory`, as far as trails deliver it. The numbers are stable: they are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Category {
    Management = 0,
    Data = 1,
    NetworkActivity = 2,
    Insight = 3,
    /// Of a source outside of AWS, by PutAuditEvents.
    ActivityAuditLog = 4,
}

impl Category {
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Management),
            1 => Some(Self::Data),
            2 => Some(Self::NetworkActivity),
            3 => Some(Self::Insight),
            4 => Some(Self::ActivityAuditLog),
            _ => None,
        }
    }

    /// By its name in `eventCategory`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "Management" => Some(Self::Management),
            "Data" => Some(Self::Data),
            "NetworkActivity" => Some(Self::NetworkActivity),
            "Insight" => Some(Self::Insight),
            "ActivityAuditLog" => Some(Self::ActivityAuditLog),
            _ => None,
        }
    }

    pub fn folder(self) -> Folder {
        match self {
            Self::Management | Self::Data | Self::ActivityAuditLog => Folder::CloudTrail,
            Self::NetworkActivity => Folder::NetworkActivity,
            Self::Insight => Folder::Insight,
        }
    }
}

/// The folder below `AWSLogs/<account>/` that an event's category belongs to (CloudTrail user guide, "find log files").
/// The numbers are stable: they are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Folder {
    /// Management and data events, and those of other sources.
    CloudTrail = 0,
    Insight = 1,
    NetworkActivity = 2,
}

impl Folder {
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::CloudTrail),
            1 => Some(Self::Insight),
            2 => Some(Self::NetworkActivity),
            _ => None,
        }
    }

    /// The folder's name, also the middle token of the file's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudTrail => "CloudTrail",
            Self::Insight => "CloudTrail-Insight",
            Self::NetworkActivity => "CloudTrail-NetworkActivity",
        }
    }
}
