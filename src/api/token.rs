//! Where a list goes on: opaque to callers, and good only for the request that it was given to.
//!
//! ```text
//! base64url of: SHA-256 over what was asked and the place (the first 16 bytes), then the place
//! ```
//!
//! "What was asked" is all that makes two requests ask for different lists: the operation, the account, the region, each parameter. A token
//! tells nothing that its caller may not know, and gets nothing that they may not have; what is in it is not a secret.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

const SUM_BYTES: usize = 16;

/// A token that is none, or one of another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "NextToken is none that this request was answered with: ask for the first page without one, and change nothing between pages"
)]
pub struct ForeignToken;

/// The token for a list that goes on at `place`.
pub fn made(asked: &[&str], place: &str) -> String {
    let mut bytes = sum(asked, place).to_vec();
    bytes.extend_from_slice(place.as_bytes());
    BASE64.encode(bytes)
}

/// The place that the token is for.
pub fn read(asked: &[&str], token: &str) -> Result<String, ForeignToken> {
    let bytes = BASE64.decode(token).map_err(|_| ForeignToken)?;
    let (given, place) = bytes.split_at_checked(SUM_BYTES).ok_or(ForeignToken)?;
    let place = std::str::from_utf8(place).map_err(|_| ForeignToken)?;
    match sum(asked, place) == given {
        true => Ok(place.to_owned()),
        false => Err(ForeignToken),
    }
}

/// One page of a list: at most `most` of what is behind the place `last`, in the order of the places, and the token for the rest, if any is left.
pub fn page<T>(
    all: impl Iterator<Item = T>,
    place: impl Fn(&T) -> &str,
    asked: &[&str],
    last: &str,
    most: usize,
) -> (Vec<T>, Option<String>) {
    let mut page: Vec<T> = all.filter(|one| place(one) > last).collect();
    page.sort_unstable_by(|one, other| place(one).cmp(place(other)));
    let is_all = page.len() <= most;
    page.truncate(most);
    let end = page.last().filter(|_| !is_all);
    let next = end.map(|end| made(asked, place(end)));
    (page, next)
}

fn sum(asked: &[&str], place: &str) -> [u8; SUM_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    // With its length, so that no two lists of parts are the same bytes.
    for part in asked.iter().chain(&[place]) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let hash = context.finish();
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hash.as_ref()[..SUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end_of_the_list() {
        let places = ["e", "b", "d", "a", "c"];
        for (most, expected) in [
            (2, vec!["ab", "cd", "e"]),
            (4, vec!["abcd", "e"]),
            (5, vec!["abcde"]),
        ] {
            let (mut last, mut pages) = (String::new(), Vec::new());
            loop {
                let (page, next) = page(places.into_iter(), |place| place, &["List"], &last, most);
                pages.push(page.concat());
                match next {
                    Some(token) => last = read(&["List"], &token).unwrap(),
                    None => break,
                }
            }
            assert_eq!(pages, expected);
        }
    }

    proptest! {
        #[test]
        fn a_token_is_good_for_its_own_request_only(
            asked in prop::collection::vec("[ab]{0,3}", 0..4),
            other in prop::collection::vec("[ab]{0,3}", 0..4),
            place in ".{0,40}",
            at in 0usize..40,
        ) {
            let parts = |asked: &[String]| asked.to_vec();
            let (asked, other) = (parts(&asked), parts(&other));
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            let other: Vec<&str> = other.iter().map(String::as_str).collect();
            let token = made(&asked, &place);
            prop_assert_eq!(read(&asked, &token), Ok(place));
            prop_assert_eq!(read(&other, &token).is_ok(), asked == other);
            let mut changed = token.into_bytes();
            let at = at % changed.len();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            // The last character may carry bits that stand for nothing, and is refused then, too.
            prop_assert!(read(&asked, &String::from_utf8(changed).unwrap()).is_err());
        }

        #[test]
        fn what_is_no_token_is_refused(token in ".{0,60}") {
            prop_assert_eq!(read(&["ListTrails"], &token), Err(ForeignToken));
        }
    }
}
