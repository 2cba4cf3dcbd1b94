//! The configuration's TOML.

use super::{Input, JSON, corpus, fuzz};
use crate::config::{Place, Source, check};

#[test]
fn a_configuration_is_sound_or_its_mistakes_are_told_with_their_places() {
    let tokens = [
        JSON,
        &[
            "[[trails]]\n",
            "[auth]\n",
            "= ",
            "'''",
            "\"\"\"",
            "${",
            "${HOME}",
            "}",
            "#",
            "1979-05-27T07:32:00Z",
            "inf",
            "0xffffffffffffffffff",
            "\"99999999999999999GiB\"",
            "a.b.c.d = 1\n",
            "max_age",
        ],
    ]
    .concat();
    fuzz(
        "configuration",
        2_000,
        &corpus("configuration"),
        &tokens,
        |text| {
            let Ok(text) = std::str::from_utf8(text) else {
                return Input::Refused;
            };
            let read = || {
                check(
                    Source::File("traild.toml".into()),
                    text,
                    [("HOME".to_owned(), "/home".to_owned())],
                )
            };
            let first = read();
            assert_eq!(first, read());
            let Err(mistakes) = &first else {
                return Input::Understood;
            };
            assert!(!mistakes.is_empty());
            let is_toml = text.parse::<toml::Table>().is_ok();
            for mistake in mistakes {
                assert!(!mistake.problem.is_empty(), "{mistake:?}");
                if !is_toml {
                    let lines = text.lines().count() + 1;
                    assert!(
                        matches!(mistake.place, Place::File { line: Some(line), .. } if (1..=lines).contains(&line)),
                        "{mistake:?}"
                    );
                }
            }
            Input::Refused
        },
    );
}
