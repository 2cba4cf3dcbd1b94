//! One page of a bucket's keys: prefix, delimiter, where to go on, how many. Pure over the index.

use super::index::{Entry, Index};

#[derive(Debug, Clone, Default)]
pub struct Query {
    pub prefix: String,
    pub delimiter: Option<String>,
    /// Only keys and common prefixes above this one. When it is itself a common prefix, all keys below it are passed over.
    pub after: String,
    pub max_keys: usize,
}

#[derive(Debug, Default, PartialEq)]
pub struct Page {
    pub contents: Vec<(String, Entry)>,
    pub common_prefixes: Vec<String>,
    /// The last key or common prefix of the page, when there is more behind it: `after` of the next page.
    pub next: Option<String>,
}

pub fn page(index: &Index, query: &Query) -> Page {
    let Query {
        prefix,
        delimiter,
        after,
        max_keys,
    } = query;
    let mut page = Page::default();
    if *max_keys == 0 {
        return page;
    }
    let delimiter = delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    let mut last = String::new();
    let mut start = if after.as_bytes() < prefix.as_bytes() {
        prefix.as_bytes().to_vec()
    } else {
        // The smallest key above `after`.
        [after.as_bytes(), &[0]].concat()
    };

    'seek: loop {
        let mut iter = index.iter_from(&start);
        while let Some((key, entry)) = iter.step() {
            // Keys came in as strings.
            let Ok(key) = std::str::from_utf8(key) else {
                continue;
            };
            let Some(rest) = key.strip_prefix(prefix.as_str()) else {
                return page;
            };
            let folded = delimiter.and_then(|delimiter| {
                let end = rest.find(delimiter)? + delimiter.len();
                Some(&key[..prefix.len() + end])
            });
            let is_new = folded != Some(after.as_str());
            if is_new {
                if page.contents.len() + page.common_prefixes.len() == *max_keys {
                    page.next = Some(last);
                    return page;
                }
                last = folded.unwrap_or(key).to_owned();
            }
            match folded {
                Some(common) => {
                    start = above_all_with_prefix(common);
                    if is_new {
                        page.common_prefixes.push(common.to_owned());
                    }
                    continue 'seek;
                }
                None => page.contents.push((key.to_owned(), entry)),
            }
        }
        return page;
    }
}

/// The smallest byte string above every key that starts with `prefix`. UTF-8 never ends in 0xFF, so adding one holds.
fn above_all_with_prefix(prefix: &str) -> Vec<u8> {
    let mut bound = prefix.as_bytes().to_vec();
    if let Some(last) = bound.last_mut() {
        *last = last.saturating_add(1);
    }
    bound
}

/// As `encoding-type=url` has it: everything but unreserved characters and `/`, in UTF-8.
pub fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'*' | b'/' => {
                out.push(char::from(byte))
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn index(keys: &BTreeSet<String>) -> Index {
        let mut index = Index::default();
        for key in keys {
            index.insert(
                key,
                Entry {
                    size: 1,
                    modified_millis: 0,
                    md5: [0; 16],
                    parts: 0,
                },
            );
        }
        index
    }

    /// Every key and common prefix in order, written as the S3 manual words it.
    fn naive(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
        let mut out = BTreeSet::new();
        for key in keys {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            match delimiter
                .and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()))
            {
                Some(end) => out.insert(format!("{prefix}{}", &rest[..end])),
                None => out.insert(key.clone()),
            };
        }
        out.into_iter().collect()
    }

    proptest! {
        #[test]
        fn pages_together_are_the_whole_listing(
            keys in proptest::collection::btree_set("[ab/é]{1,6}", 0..200),
            prefix in "[ab/]{0,2}",
            delimiter in proptest::option::of("/|a|b/|é"),
            max_keys in 1usize..20,
        ) {
            let index = index(&keys);
            let mut query = Query { prefix: prefix.clone(), delimiter: delimiter.clone(), max_keys, ..Query::default() };
            let mut listed = Vec::new();
            loop {
                let page = page(&index, &query);
                let mut items: Vec<_> = page.contents.into_iter().map(|(key, _)| key).chain(page.common_prefixes).collect();
                items.sort();
                prop_assert!(items.len() <= max_keys);
                listed.extend(items);
                match page.next {
                    Some(next) => query.after = next,
                    None => break,
                }
            }
            prop_assert_eq!(listed, naive(&keys, &prefix, delimiter.as_deref()));
        }

        #[test]
        fn url_encoding_leaves_only_safe_bytes(text in ".{0,40}") {
            prop_assert!(url_encode(&text).bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
