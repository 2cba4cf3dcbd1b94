use std::fs::{Permissions, copy, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::tests::{only, sound};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/tls")
        .join(name)
}

fn listen(cert: &str, key: &Path, client_ca: Option<&str>) -> String {
    let client_ca = client_ca.map_or(String::new(), |name| {
        format!(", client_ca_file = {:?}", golden(name))
    });
    format!(
        "[listen]\ntls = {{ cert_file = {:?}, key_file = {key:?}{client_ca} }}\n",
        golden(cert)
    )
}

#[test]
fn files_are_read_with_the_configuration_and_what_is_wrong_is_told_of_the_right_one() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    copy(golden("server.key"), &key).unwrap();
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let loaded = sound(&listen("server.pem", &key, Some("ca.pem")));
    assert_eq!(loaded.warnings, []);
    let files = loaded.config.listen.tls.unwrap();
    assert_eq!(files.client_ca_file, Some(golden("ca.pem")));

    for (text, wrong, told) in [
        (
            "[listen.tls]\ncert_file = \"a\"".to_owned(),
            "listen.tls.key_file",
            "is missing",
        ),
        (
            listen("renewed.pem", &key, None),
            "listen.tls.key_file",
            "is not the key of the certificate",
        ),
        (
            listen("none.pem", &key, None),
            "listen.tls.cert_file",
            "cannot be read",
        ),
        (
            listen("server.pem", &key, Some("server.key")),
            "listen.tls.client_ca_file",
            "holds no certificate",
        ),
        (
            listen("server.pem", &key, None) + "[[auth.certificates]]\ncommon_name = \"a\"",
            "auth.certificates",
            "add client_ca_file",
        ),
    ] {
        let (found, message) = only(&text);
        assert_eq!(found, wrong, "{message}");
        assert!(message.contains(told), "{message}");
    }

    set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let warnings = sound(&listen("server.pem", &key, None)).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.contains("(mode 0644)"));
}

#[test]
fn certificates_are_principals_by_one_name_each() {
    let key = golden("server.key");
    let with = |certificates: &str| {
        let tls = listen("server.pem", &key, Some("ca.pem"));
        format!("account_id = \"999988887777\"\n{tls}[auth]\nmode = \"sigv4\"\n{certificates}")
    };
    let loaded = sound(&with(
        "[[auth.certificates]]\nuri = \"spiffe://example.org/ns/audit/sa/collector\"\naccount_id = \"111122223333\"\n\
         [[auth.certificates]]\ndns = \"Collector.audit.svc\"\n\
         [[auth.certificates]]\ncommon_name = \"The Collector\"\nuser_name = \"collector\"\n",
    ));
    let given = loaded.config.auth.certificates;
    let given: Vec<_> = given
        .iter()
        .map(|one| (one.name.to_string(), &*one.user_name, one.account.as_str()))
        .collect();
    let uri = "spiffe://example.org/ns/audit/sa/collector".to_owned();
    assert_eq!(
        given,
        [
            (uri, "example.org/ns/audit/sa/collector", "111122223333"),
            (
                "collector.audit.svc".to_owned(),
                "Collector.audit.svc",
                "999988887777"
            ),
            ("The Collector".to_owned(), "collector", "999988887777"),
        ]
    );
    for (certificates, wrong, told) in [
        (
            "[[auth.certificates]]",
            "auth.certificates[0].uri",
            "is missing",
        ),
        (
            "[[auth.certificates]]\ndns = \"a\"\ncommon_name = \"a\"",
            "auth.certificates[0].common_name",
            "is a second name",
        ),
        (
            "[[auth.certificates]]\ncommon_name = \"The Collector\"",
            "auth.certificates[0].common_name",
            "add user_name",
        ),
        (
            "[[auth.certificates]]\ncommon_name = \"a\"\nuser_name = \"a//b\"",
            "auth.certificates[0].user_name",
            "is not the name of a user",
        ),
        (
            "[[auth.certificates]]\ndns = \"a\"\n[[auth.certificates]]\ndns = \"A\"",
            "auth.certificates[1].dns",
            "is also the name of auth.certificates[0]",
        ),
        (
            "[[auth.certificates]]\ndns = \"a\"\npolicy_file = \"/no/such/file\"",
            "auth.certificates[0].policy_file",
            "cannot be read",
        ),
    ] {
        let (found, message) = only(&with(certificates));
        assert_eq!(found, wrong, "{message}");
        assert!(message.contains(told), "{message}");
    }
}
