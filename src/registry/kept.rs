//! A file of what callers of the API have made: a line with a sum ([`snapshot::with_sum`]), then JSON. One that cannot be understood is put
//! aside under another name, and told of, so that damage stops nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::clock::WallMillis;
use crate::snapshot;

/// What is kept in a file; nothing when there is none, or none that `understood` makes something of. `loss` tells the operator what that
/// means. Blocking.
pub fn read<T>(
    path: &Path,
    now: WallMillis,
    understood: impl FnOnce(&[u8]) -> Result<Vec<T>, String>,
    loss: &'static str,
) -> io::Result<Vec<T>> {
    let Some(bytes) = snapshot::read(path)? else {
        return Ok(Vec::new());
    };
    let json = snapshot::without_sum(&bytes).ok_or_else(|| "its sum is another".to_owned());
    let why = match json.and_then(understood) {
        Ok(kept) => return Ok(kept),
        Err(why) => why,
    };
    let aside = aside(path, now);
    std::fs::rename(path, &aside)?;
    tracing::error!(path = %path.display(), aside = %aside.display(), error = why, "{loss}");
    Ok(Vec::new())
}

fn aside(path: &Path, now: WallMillis) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".damaged-{}", now.0));
    aside.into()
}
