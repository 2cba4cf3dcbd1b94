//! The limit of open files, raised to what the process may have.
//!
//! The soft limit of a login shell or container is often 1024, which that many connections and a journal's segments exceed; the hard limit is
//! usually far higher. The soft limit exists for the sake of programs that use `select`, which this one does not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard one. It matters little if it cannot: then fewer connections are accepted.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            debug!(from = ?limit.current, to = ?limit.maximum, "raised the limit of open files")
        }
        Err(error) => {
            warn!(limit = ?limit.current, %error, "cannot raise the limit of open files")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        // Lowers nothing that other tests of this process need.
        let soft = before.maximum.map(|hard| hard - 1);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: soft,
                maximum: before.maximum,
            },
        )
        .unwrap();
        raise_file_limit();
        assert_eq!(getrlimit(Resource::Nofile), both(before.maximum));
    }

    fn both(hard: Option<u64>) -> Rlimit {
        Rlimit {
            current: hard,
            maximum: hard,
        }
    }
}
