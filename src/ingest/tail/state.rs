//! `data_dir/inputs.json`: how far each file has been read, replaced whole.
//!
//! ```json
//! {"version":1,"files":[{"path":"/var/log/app/audit.ndjson","device":2049,"inode":131,"prefix_bytes":256,
//!   "prefix_xxh3":"9f…","generation":"…uuid…","offset":71203,"in_long_line":false}]}
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::snapshot;

const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where it was when it was first seen.
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
    pub prefix_bytes: u64,
    /// Hexadecimal XXH3-128 of the first `prefix_bytes`.
    pub prefix_xxh3: String,
    /// The random name of this life of the file; a file truncated and written anew has another one.
    pub generation: String,
    /// All before it is stored or refused.
    pub offset: u64,
    /// `offset` stands inside a line that is too long and being stepped over.
    pub in_long_line: bool,
    /// Since when it has not been found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since_millis: Option<i64>,
}

impl Saved {
    pub fn generation(&self) -> Uuid {
        Uuid::parse_str(&self.generation).unwrap_or_else(|_| Uuid::new_v4())
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    files: Vec<Saved>,
}

/// What was saved. A file that makes no sense is set aside: everything is read again, and what is still remembered is a duplicate.
pub fn load(path: &Path) -> io::Result<Vec<Saved>> {
    let Some(bytes) = snapshot::read(path)? else {
        return Ok(Vec::new());
    };
    match serde_json::from_slice::<Content>(&bytes) {
        Ok(Content {
            version: VERSION,
            files,
        }) => Ok(files),
        _ => {
            warn!(path = %path.display(), "the positions of followed files are damaged and set aside, the files are read from their beginning");
            std::fs::rename(path, path.with_extension("json.damaged"))?;
            Ok(Vec::new())
        }
    }
}

pub fn save(path: &Path, files: Vec<Saved>) -> io::Result<()> {
    let content = serde_json::to_vec_pretty(&Content {
        version: VERSION,
        files,
    })
    .map_err(io::Error::other)?;
    snapshot::replace(path, &content)
}
