use std::fs::{Permissions, set_permissions, write};

use super::super::Loaded;
use super::super::tests::{only, sound, with};
use super::*;

const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["cloudtrail:Get*", "organizations:*"], "Resource": "*"}}"#;

fn credentials(loaded: &Loaded) -> &[Credential] {
    match &loaded.config.auth.requests {
        Options::SigV4(credentials) => credentials,
        Options::None => panic!("{:?}", loaded.config.auth),
    }
}

#[test]
fn credentials_come_with_their_secrets_and_policies() {
    let directory = tempfile::tempdir().unwrap();
    let (secret, policy) = (
        directory.path().join("secret"),
        directory.path().join("policy.json"),
    );
    write(&secret, "from/a+file=\n").unwrap();
    set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    write(&policy, POLICY).unwrap();
    let text = format!(
        "account_id = \"999988887777\"\n[listen]\napi = \"0.0.0.0:4580\"\n[auth]\nmode = \"sigv4\"\n\
         [[auth.credentials]]\naccess_key_id = \"FILE\"\nsecret_access_key_file = {secret:?}\naccount_id = \"111122223333\"\npolicy_file = {policy:?}\n\
         [[auth.credentials]]\naccess_key_id = \"VARIABLE\"\nsecret_access_key = \"${{APP_SECRET}}\"\n"
    );
    let loaded = with(&text, &[("APP_SECRET", "canary")]).unwrap();
    assert_eq!(loaded.warnings, []);
    let given: Vec<_> = credentials(&loaded)
        .iter()
        .map(|one| {
            (
                one.access_key_id.as_str(),
                &one.secret,
                one.account.as_str(),
                one.policy.is_some(),
            )
        })
        .collect();
    assert_eq!(
        given,
        [
            (
                "FILE",
                &SecretKey::new("from/a+file=".into()),
                "111122223333",
                true
            ),
            (
                "VARIABLE",
                &SecretKey::new("canary".into()),
                "999988887777",
                false
            ),
        ]
    );
    let printed = format!("{loaded:?}");
    assert!(
        !printed.contains("canary") && !printed.contains("from/a+file"),
        "{printed}"
    );

    set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let warnings = with(&text, &[("APP_SECRET", "canary")]).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].key,
        "auth.credentials[0].secret_access_key_file"
    );
    assert!(
        warnings[0].message.contains("(mode 0644)"),
        "{}",
        warnings[0].message
    );
}

#[test]
fn with_mode_none_credentials_are_read_and_said_to_have_no_effect() {
    let loaded = sound("[[auth.credentials]]\naccess_key_id = \"A\"\nsecret_access_key = \"b\"");
    assert_eq!(loaded.config.auth.requests, Options::None);
    assert!(
        loaded.warnings[0].message.contains("have no effect"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn what_is_wrong_with_credentials_is_said_with_a_remedy_and_without_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        write(&path, content).unwrap();
        format!("{:?}", path.display().to_string())
    };
    let (empty, lines) = (file("empty", "\n"), file("lines", "one\ntwo\n"));
    let huge = file("huge", &"x".repeat(70_000));
    let (sound, typo) = (
        file("sound", "canary"),
        file("typo", &POLICY.replace("Get*", "Gte*")),
    );
    let one = "[auth]\nmode = \"sigv4\"\n[[auth.credentials]]\naccess_key_id = \"AKID\"\n";
    let secret = "secret_access_key = \"canary\"\n";
    for (text, key, words) in [
        (
            "[auth]\nmode = \"sigv4\"".to_owned(),
            "mode",
            "needs credentials",
        ),
        (
            "[auth]\nmode = \"SigV4\"".to_owned(),
            "mode",
            "write \"none\" or \"sigv4\"",
        ),
        (
            format!("{one}{secret}[[auth.credentials]]\naccess_key_id = \"AKID\"\n{secret}"),
            "credentials[1].access_key_id",
            "also the access key of auth.credentials[0]",
        ),
        (
            one.to_owned(),
            "credentials[0].secret_access_key_file",
            "is missing",
        ),
        (
            format!("{one}secret_access_key = \"\""),
            "credentials[0].secret_access_key",
            "is empty",
        ),
        (
            format!("{one}secret_access_key = \"canary \""),
            "credentials[0].secret_access_key",
            "holds blanks",
        ),
        (
            format!("{one}secret_access_key = [\"canary\"]"),
            "credentials[0].secret_access_key",
            "is an array, not text",
        ),
        (
            format!("{one}secret_access_key = \"canary${{UNSET}}\""),
            "credentials[0].secret_access_key",
            "UNSET",
        ),
        (
            format!("{one}{secret}secret_access_key_file = {sound}"),
            "credentials[0].secret_access_key_file",
            "does not go with secret_access_key",
        ),
        (
            format!("{one}secret_access_key_file = \"/nowhere/at/all\""),
            "credentials[0].secret_access_key_file",
            "cannot be read: No such file",
        ),
        (
            format!("{one}secret_access_key_file = {empty}"),
            "credentials[0].secret_access_key_file",
            "names a file that is empty",
        ),
        (
            format!("{one}secret_access_key_file = {lines}"),
            "credentials[0].secret_access_key_file",
            "more than one line",
        ),
        (
            format!("{one}secret_access_key_file = {huge}"),
            "credentials[0].secret_access_key_file",
            "more than 65536 bytes",
        ),
        (
            format!("{one}{secret}policy_file = {sound}"),
            "credentials[0].policy_file",
            "is not JSON",
        ),
        (
            format!("{one}{secret}policy_file = {typo}"),
            "credentials[0].policy_file",
            "Statement[0].Action \"cloudtrail:Gte*\" is no action",
        ),
        (
            format!("{one}{secret}policy_file = \"/nowhere\""),
            "credentials[0].policy_file",
            "cannot be read",
        ),
        (
            format!("{one}{secret}account_id = \"12\""),
            "credentials[0].account_id",
            "twelve digits",
        ),
        (
            format!("{one}{secret}").replace("AKID", "A/B"),
            "credentials[0].access_key_id",
            "is not an access key",
        ),
        (
            format!("{one}{secret}")
                .replace("access_key_id", "acces_key_id")
                .replacen("secret_acces_key_id", "x", 1),
            "credentials[0].access_key_id",
            "is missing",
        ),
        (
            format!("{one}secret_acess_key = \"canary\"\nsecret_access_key_file = {sound}"),
            "credentials[0].secret_acess_key",
            "did you mean auth.credentials.secret_access_key?",
        ),
        (
            "[auth]\ncredentials = { secret_access_key = \"canary\" }".to_owned(),
            "credentials",
            "write [[auth.credentials]]",
        ),
        ("auth = [\"canary\"]".to_owned(), "", "write [auth]"),
    ] {
        // Of several mistakes that one slip makes, the one that names it.
        let mistakes = with(&text, &[]).expect_err(&text);
        let expected = format!("auth.{key}");
        let found = mistakes
            .iter()
            .find(|one| one.key == expected.trim_end_matches('.'));
        let message = found
            .unwrap_or_else(|| panic!("{key}: {mistakes:#?}"))
            .to_string();
        assert!(
            message.contains(words) && message.contains("hint: "),
            "{words:?} is not in: {message}"
        );
        for mistake in mistakes {
            assert!(!mistake.to_string().contains("canary"), "{mistake}");
            assert!(!format!("{mistake:?}").contains("canary"), "{mistake:?}");
        }
    }
    let store = "[storage]\nlisten = \"0.0.0.0:4582\"\n";
    let (key, message) = only(&format!("{store}{one}{secret}"));
    assert_eq!(key, "storage.listen");
    assert!(
        message.contains("could read and write the buckets"),
        "{message}"
    );
}
