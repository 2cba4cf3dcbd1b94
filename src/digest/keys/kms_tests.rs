use std::path::Path;

use aws_lc_rs::rsa::KeySize;
use serde_json::json;

use super::super::fake_kms::{FakeKms, error, some_description};
use super::super::{AnySigner, Keys, PublicKey, TimeRange};
use super::*;
use crate::deliver::fake::{Answer, Service};
use crate::digest::document::Digest;
use crate::digest::sign::Signed;
use crate::digest::vectors;

const ALIAS: &str = "alias/digests";
/// 2026-05-01T00:00:00Z.
const MAY: i64 = 1_777_593_600;
const DAY: i64 = 86_400;

fn at(seconds: i64) -> WallMillis {
    WallMillis(seconds * 1000)
}

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn files(path: &Path) -> FileKeys {
    FileKeys::open(&path.join("keys")).unwrap()
}

fn kms_keys(kms: &FakeKms, path: &Path) -> KmsKeys {
    KmsKeys::open(kms.client(), ALIAS.to_owned(), files(path))
}

async fn listed(keys: &FileKeys) -> Vec<(Region, PublicKey)> {
    let everything = TimeRange::asked(Some(i64::MIN), Some(i64::MAX), WallMillis(0)).unwrap();
    keys.public_keys(everything).await.unwrap()
}

fn fingerprints(listed: &[(Region, PublicKey)]) -> Vec<Fingerprint> {
    listed.iter().map(|(_, key)| key.fingerprint()).collect()
}

#[tokio::test]
async fn one_key_signs_for_every_region_and_its_public_part_is_listed_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    for (size, bytes) in [(KeySize::Rsa2048, 256), (KeySize::Rsa4096, 512)] {
        let arn = kms.make(ALIAS, size);
        let keys = Keys::Kms(kms_keys(&kms, directory.path()));
        let asked_before = kms.times("GetPublicKey");
        let frankfurt = keys.signer(region("eu-central-1"), at(MAY)).await.unwrap();
        let signer = keys.signer(region("our-cellar"), at(MAY)).await.unwrap();
        assert_eq!(signer.fingerprint(), frankfurt.fingerprint());
        assert_eq!(kms.times("GetPublicKey"), asked_before + 1);

        let mut digest = Digest::read(vectors::digests()[0].uncompressed.as_bytes()).unwrap();
        digest.fingerprint = signer.fingerprint();
        let signed = Signed::new(&digest, &signer).await.unwrap();
        let text = sign::string_to_sign(&digest, &signed.sha256);
        assert_eq!(signed.signature.0.len(), bytes);
        assert_eq!(kms.last()["KeyId"], json!(arn), "not the alias");

        let listed = listed(&files(directory.path())).await;
        let of_kms = |it: &&(Region, PublicKey)| it.1.fingerprint() == signer.fingerprint();
        let (kept_in, key) = listed.iter().find(of_kms).unwrap();
        assert_eq!(*kept_in, region("eu-west-1"), "the one of its ARN");
        assert_eq!(key.der(), signer.public_key());
        assert!(key.is_valid_at(MAY) && key.is_valid_at(MAY + DAY));
        assert_eq!(sign::verify(key.der(), &text, &signed.signature), Ok(()));
    }
    assert_eq!(listed(&files(directory.path())).await.len(), 2);
}

#[tokio::test]
async fn a_key_that_cannot_sign_digests_is_refused_for_what_it_lacks_and_never_listed() {
    let directory = tempfile::tempdir().unwrap();
    let good = some_description();
    let with = |key: &str, value: serde_json::Value| {
        let mut answer = good.clone();
        answer[key] = value;
        Answer::new(200, answer)
    };
    let answers = [
        (
            with("KeyUsage", json!("ENCRYPT_DECRYPT")),
            "its usage is ENCRYPT_DECRYPT, not SIGN_VERIFY",
        ),
        (
            with("KeySpec", json!("ECC_NIST_P256")),
            "its spec is ECC_NIST_P256",
        ),
        (with("KeySpec", json!(null)), "its spec is not given"),
        (
            with("SigningAlgorithms", json!(["RSASSA_PSS_SHA_256"])),
            "does not sign with RSASSA_PKCS1_V1_5",
        ),
        (
            with("PublicKey", json!("AAAA")),
            "something else than an RSA public key",
        ),
        (
            with("PublicKey", json!(null)),
            "something else than an RSA public key",
        ),
        (with("KeyId", json!("alias/digests")), "without its ARN"),
        (
            with("KeyId", json!("arn:aws:kms:../..:111122223333:key/x")),
            "without its ARN",
        ),
        (
            error(400, "UnsupportedOperationException"),
            "it has no public key: told so",
        ),
    ];
    for (Answer { status, body }, why) in answers {
        let service = Service::start(move |_| Answer::new(status, &body)).await;
        let client = Client::new(&service.sdk_config());
        let told = check(client.clone(), ALIAS).await.unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
        let client = Renewing::new(client.clone(), move || std::future::ready(client.clone()));
        let keys = KmsKeys::open(client, ALIAS.to_owned(), files(directory.path()));
        let refused = keys.signer(at(MAY)).await.unwrap_err();
        assert!(
            matches!(refused, KeysError::Kms(KmsError::Unfit { .. })),
            "{refused}"
        );
        assert_eq!(listed(keys.directory()).await, []);
    }
}

#[tokio::test]
async fn what_kms_refuses_is_told_by_its_name_and_signed_when_it_does_not_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    let troubles = [
        (400, "ThrottlingException"),
        (400, "AccessDeniedException"),
        (400, "NotFoundException"),
        (500, "KMSInternalException"),
    ];
    for (status, code) in troubles {
        kms.state().down = Some((status, code));
        let refused = keys.signer(at(MAY)).await.unwrap_err().to_string();
        let told = format!("cannot get the public key of the KMS key {ALIAS}: {code}: told so");
        assert_eq!(refused, told);
    }
    kms.state().down = None;
    let signer = keys.signer(at(MAY)).await.unwrap();
    for (status, code) in troubles {
        kms.state().down = Some((status, code));
        let refused = signer.sign("text").await.unwrap_err().to_string();
        assert!(refused.ends_with(&format!("{code}: told so")), "{refused}");
    }
    kms.state().down = None;
    let signature = signer.sign("text").await.unwrap();
    assert_eq!(
        sign::verify(signer.public_key(), "text", &signature),
        Ok(())
    );
}

#[tokio::test]
async fn a_daemon_starts_without_kms_and_lists_what_has_signed_before() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let before = kms_keys(&kms, directory.path());
    let known = before.signer(at(MAY)).await.unwrap().fingerprint();

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let service = Service::start(|_| panic!("asked")).await;
    let sdk = service.sdk_config().into_builder();
    let client = Client::new(&sdk.endpoint_url(endpoint).build());
    let client = Renewing::new(client.clone(), move || std::future::ready(client.clone()));
    let keys = KmsKeys::open(client, ALIAS.to_owned(), files(directory.path()));
    assert_eq!(fingerprints(&listed(keys.directory()).await), [known]);
    let refused = keys.signer(at(MAY)).await.unwrap_err();
    assert!(
        matches!(&refused, KeysError::Kms(KmsError::NotGiven { failure, .. }) if failure.code == "DispatchFailure"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_alias_that_is_moved_brings_another_key_and_both_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    let old_arn = kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    let old = keys.signer(at(MAY)).await.unwrap();
    let new_arn = kms.make(ALIAS, KeySize::Rsa2048);
    let same = keys.signer(at(MAY + 60)).await.unwrap();
    assert_eq!(same.fingerprint(), old.fingerprint(), "not asked yet");

    tokio::time::pause();
    tokio::time::advance(REFRESH).await;
    tokio::time::resume();
    let new = keys.signer(at(MAY + 300)).await.unwrap();
    assert_ne!(new.fingerprint(), old.fingerprint());
    // What names the old key is still signed with it.
    for (signer, arn) in [(&old, &old_arn), (&new, &new_arn)] {
        let signature = signer.sign("text").await.unwrap();
        assert_eq!(kms.last()["KeyId"], json!(arn));
        assert_eq!(
            sign::verify(signer.public_key(), "text", &signature),
            Ok(())
        );
    }
    let both = [old.fingerprint(), new.fingerprint()];
    assert_eq!(fingerprints(&listed(&files(directory.path())).await), both);

    // A key that is refused is not waited for.
    kms.state().names.insert(ALIAS.to_owned(), old_arn.clone());
    kms.state().refused.insert(new_arn, "DisabledException");
    new.sign("text").await.unwrap_err();
    let back = keys.signer(at(MAY + 600)).await.unwrap();
    assert_eq!(back.fingerprint(), old.fingerprint());
}

#[tokio::test]
async fn a_signature_that_is_not_the_keys_is_never_used() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    let stranger = kms.make("alias/other", KeySize::Rsa2048);
    kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    let signer = keys.signer(at(MAY)).await.unwrap();
    kms.state().signs_instead = Some(stranger);
    let refused = signer.sign("text").await.unwrap_err();
    assert!(matches!(refused, SignError::Invalid { .. }), "{refused}");
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_question_and_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    for (asked, down) in [
        (1, Some((500, "KMSInternalException"))),
        (2, None),
        (2, None),
    ] {
        kms.state().down = down;
        let all = (0..8).map(|_| keys.signer(at(MAY)));
        let all = futures::future::join_all(all).await;
        assert!(all.iter().all(|it| it.is_err() == down.is_some()));
        assert_eq!(kms.times("GetPublicKey"), asked);
    }
}

#[tokio::test]
async fn nothing_is_signed_before_the_public_key_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    let (path, aside) = (
        directory.path().join("keys"),
        directory.path().join("aside"),
    );
    std::fs::rename(&path, &aside).unwrap();
    let error = keys.signer(at(MAY)).await.unwrap_err();
    assert!(matches!(error, KeysError::File { .. }), "{error}");
    assert_eq!(listed(keys.directory()).await, []);
    std::fs::rename(&aside, &path).unwrap();
    keys.signer(at(MAY)).await.unwrap();
    // A moment that it is not listed for, too.
    std::fs::rename(&path, &aside).unwrap();
    keys.signer(at(MAY + 40 * DAY)).await.unwrap_err();
}

#[tokio::test]
async fn keys_of_files_and_of_kms_are_listed_whoever_signs_and_sign_again_when_their_turn_comes() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let here = region("eu-west-1");
    let signs = async |keys: Keys, seconds| {
        let signer: AnySigner = keys.signer(here, at(seconds)).await.unwrap();
        let signature = signer.sign("text").await.unwrap();
        assert_eq!(
            sign::verify(signer.public_key(), "text", &signature),
            Ok(())
        );
        signer.fingerprint()
    };
    let open = || Keys::Files(files(directory.path()));
    let of_file = signs(open(), MAY).await;
    let of_kms = signs(Keys::Kms(kms_keys(&kms, directory.path())), MAY + DAY).await;
    let again = signs(open(), MAY + 2 * DAY).await;
    assert_eq!(again, of_file, "its thirty days are not over");
    let late = signs(Keys::Kms(kms_keys(&kms, directory.path())), MAY - DAY).await;
    assert_eq!(late, of_kms);

    let keys = Keys::Kms(kms_keys(&kms, directory.path()));
    keys.retire(at(MAY + 31 * DAY)).await.unwrap();
    let all = listed(&files(directory.path())).await;
    assert_eq!(fingerprints(&all), [of_kms, of_file], "by time");
    assert!(all[0].1.is_valid_at(MAY - DAY) && all[0].1.is_valid_at(MAY + DAY));
    let names = std::fs::read_dir(directory.path().join("keys")).unwrap();
    let is_private = |name: &str| name.contains("private");
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| is_private(name)).count(), 0);
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_public_key_is_removed_and_the_key_is_listed_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let kms = FakeKms::start().await;
    kms.make(ALIAS, KeySize::Rsa2048);
    let keys = kms_keys(&kms, directory.path());
    let fingerprint = keys.signer(at(MAY)).await.unwrap().fingerprint();
    let before = listed(keys.directory()).await;
    let name = format!("eu-west-1.{fingerprint}.kms.json.new");
    let unfinished = directory.path().join("keys").join(name);
    std::fs::write(&unfinished, b"{\"Val").unwrap();
    assert_eq!(listed(&files(directory.path())).await, before);
    assert!(!unfinished.exists());
}

#[test]
fn signing_may_move_between_threads() {
    fn sent<T: Send>(_: impl Fn(KmsKeys, KmsSigner) -> T) {}
    sent(|keys, signer| async move {
        let _ = keys.signer(WallMillis(0)).await;
        let _ = signer.sign("text").await;
    });
}
