//! Whether digests can be signed: the key directory is nobody else's, and the key in AWS KMS is there and of the right kind.
//!
//! The daemon does not start with a directory that others have rights to. It starts without KMS, but signs no digest until KMS answers it what it
//! is asked here: so what KMS says of the key is a mistake, and that it says nothing is a warning.

use aws_config::SdkConfig;

use super::Findings;
use super::destinations::PATIENCE;
use crate::aws;
use crate::config::Config;
use crate::digest::keys::KeysError;
use crate::digest::keys::files;
use crate::digest::keys::kms::{self, KmsError};

/// Looks at both. Creates nothing.
pub async fn check(config: &Config, sdk: &SdkConfig, findings: &mut Findings) {
    check_directory(config, findings);
    if let Some(key_id) = &config.digest.kms_key_id {
        check_kms(key_id, sdk, findings).await;
    }
}

fn check_directory(config: &Config, findings: &mut Findings) {
    const KEY: &str = "digest.key_dir";
    let is_told = findings.mistakes.iter().any(|it| it.key == "data_dir");
    if is_told && config.digest.key_dir.is_none() {
        return;
    }
    let path = config.key_dir();
    let shown = path.display();
    match files::check(&path) {
        Err(KeysError::Exposed { mode, .. }) => findings.mistake(
            KEY,
            &shown,
            format!("others have rights to it (mode {mode:04o})"),
            format!("chmod 700 {shown}"),
        ),
        _ => super::check_directory(KEY, &path, findings),
    }
}

async fn check_kms(key_id: &str, sdk: &SdkConfig, findings: &mut Findings) {
    const KEY: &str = "digest.kms_key_id";
    const UNFIT_HINT: &str =
        "make one that can: aws kms create-key --key-usage SIGN_VERIFY --key-spec RSA_2048";
    let client = aws::kms_client(sdk, key_id);
    let region = client.config().region().map(ToString::to_string);
    let look = tokio::time::timeout(PATIENCE, kms::check(client, key_id));
    let failure = match look.await {
        Ok(Ok(())) => return,
        Ok(Err(KmsError::Unfit { why, .. })) => {
            let problem = format!("cannot sign digests: {why}");
            return findings.mistake(KEY, key_id, problem, UNFIT_HINT);
        }
        Ok(Err(KmsError::NotGiven { failure, .. })) => failure,
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            let why = format!("no answer from KMS within {seconds} seconds");
            return findings.warn(KEY, unknown(&why));
        }
    };
    let region = region.unwrap_or_else(|| "the configured region".to_owned());
    let (problem, hint) = match failure.code.as_str() {
        "NotFoundException" => (
            format!("the key does not exist in {region}"),
            "create it there, or name another one; until then digests wait",
        ),
        "AccessDeniedException" => (
            format!("KMS refuses: {}", failure.message),
            "allow kms:GetPublicKey and kms:Sign on the key to whoever traild runs as",
        ),
        "DisabledException" | "KMSInvalidStateException" => (
            format!("the key cannot be used: {}", failure.message),
            "enable it (aws kms enable-key), or name another one; until then digests wait",
        ),
        code => {
            let why = format!("{code}: {}", failure.message);
            return findings.warn(KEY, unknown(&why));
        }
    };
    findings.mistake(KEY, key_id, problem, hint);
}

fn unknown(why: &str) -> String {
    format!("cannot be checked: {why}; digests wait until KMS signs, and nothing else does")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Place;
    use crate::deliver::fake::{Answer, Service};
    use crate::digest::keys::fake_kms::some_description;

    async fn found(config: &Config, sdk: &SdkConfig) -> Findings {
        let mut findings = Findings {
            place: Place::Default,
            mistakes: Vec::new(),
            notes: Vec::new(),
        };
        check(config, sdk, &mut findings).await;
        findings
    }

    fn config(directory: &std::path::Path) -> Config {
        let mut config = Config::embedded_default();
        config.data_dir = directory.to_owned();
        config
    }

    #[tokio::test]
    async fn what_kms_says_of_the_key_is_a_mistake_and_that_it_says_nothing_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&directory.path().join("none"));
        config.digest.kms_key_id = Some("alias/digests".to_owned());
        let error = |code: &str| format!(r#"{{"__type":"{code}","message":"told so"}}"#);
        let good = some_description();
        let mut for_encryption = good.clone();
        for_encryption["KeyUsage"] = "ENCRYPT_DECRYPT".into();
        for (status, body, mistake, note) in [
            (200, good.to_string(), "", ""),
            (
                200,
                for_encryption.to_string(),
                "its usage is ENCRYPT_DECRYPT",
                "",
            ),
            (200, "{}".to_owned(), "its usage is not given", ""),
            (
                400,
                error("UnsupportedOperationException"),
                "it has no public key: told so",
                "",
            ),
            (
                400,
                error("NotFoundException"),
                "does not exist in eu-west-1",
                "",
            ),
            (
                400,
                error("AccessDeniedException"),
                "KMS refuses: told so",
                "",
            ),
            (
                400,
                error("DisabledException"),
                "cannot be used: told so",
                "",
            ),
            (
                400,
                error("ThrottlingException"),
                "",
                "ThrottlingException: told so",
            ),
            (
                500,
                error("KMSInternalException"),
                "",
                "KMSInternalException: told so",
            ),
        ] {
            let shown = body.clone();
            let service = Service::start(move |asked| {
                assert_eq!(asked.target(), "TrentService.GetPublicKey");
                assert_eq!(asked.json()["KeyId"], "alias/digests");
                Answer::new(status, &body)
            })
            .await;
            let findings = found(&config, &service.sdk_config()).await;
            let mistakes: Vec<_> = findings.mistakes.iter().map(ToString::to_string).collect();
            assert_eq!(mistakes.len(), usize::from(!mistake.is_empty()), "{shown}");
            assert!(
                mistakes
                    .iter()
                    .all(|it| it.contains(mistake) && it.contains("hint: ")),
                "{mistakes:?}"
            );
            assert_eq!(
                findings.notes.len(),
                usize::from(!note.is_empty()),
                "{shown}"
            );
            assert!(
                findings.notes.iter().all(|it| it.contains(note)),
                "{:?}",
                findings.notes
            );
        }
        assert!(!config.data_dir.exists(), "validating creates nothing");
    }

    #[tokio::test]
    async fn a_key_directory_that_others_have_rights_to_is_told_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let sdk = SdkConfig::builder().build();
        assert_eq!(found(&config, &sdk).await.mistakes, []);
        let path = directory.path().join("keys");
        std::fs::create_dir(&path).unwrap();
        for (mode, mistakes) in [(0o700, 0), (0o750, 1), (0o704, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let findings = found(&config, &sdk).await;
            assert_eq!(findings.mistakes.len(), mistakes, "{mode:o}");
            for mistake in findings.mistakes {
                assert_eq!(mistake.key, "digest.key_dir");
                assert!(mistake.to_string().contains("hint: chmod 700"), "{mistake}");
            }
            let now = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(now & 0o777, mode);
        }
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(found(&config, &sdk).await.mistakes.len(), 1);
    }
}
