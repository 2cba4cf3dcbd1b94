use std::net::SocketAddr;
use std::time::Instant;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::server::{Limits, Listener, Peer, serve};

/// Certificates of one authority until 2056, but for one that has expired.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/tls")
        .join(name)
}

fn files(cert: &str, key: &str, client_ca: Option<&str>) -> Files {
    Files {
        cert_file: golden(cert),
        key_file: golden(key),
        client_ca_file: client_ca.map(golden),
    }
}

fn certificate(name: &str) -> Certificate {
    let pem = std::fs::read(golden(name)).unwrap();
    Certificate::parse(&certificates(&pem).unwrap()[0]).unwrap()
}

#[test]
fn a_certificate_tells_its_dates_and_names() {
    let client = certificate("client.pem");
    assert_eq!(
        (client.not_before, client.not_after),
        (1_767_225_600, 2_713_910_400)
    );
    let names = client.names;
    assert_eq!(names.common_name.as_deref(), Some("collector"));
    assert_eq!(names.dns, ["collector.audit.svc", "Other.example.org"]);
    assert_eq!(names.uris, ["spiffe://example.org/ns/audit/sa/collector"]);
    let server = certificate("server.pem").names;
    assert_eq!((server.common_name, server.uris.len()), (None, 0));
    assert_eq!(server.dns, ["localhost"]);
}

#[test]
fn a_certificate_that_is_cut_or_changed_is_read_or_refused_and_nothing_worse() {
    let pem = std::fs::read(golden("client.pem")).unwrap();
    let whole = certificates(&pem).unwrap().remove(0).to_vec();
    for cut in 0..whole.len() {
        assert!(Certificate::parse(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let _ = Certificate::parse(&changed);
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_told_by_their_key() {
    let fault = |files: &Files| match load(files) {
        Ok(_) => panic!("{files:?}"),
        Err(error) => (error.key, error.problem),
    };
    for (files, key, problem) in [
        (
            files("none.pem", "server.key", None),
            "cert_file",
            "cannot be read",
        ),
        (
            files("server.key", "server.key", None),
            "cert_file",
            "no certificate",
        ),
        (
            files("server.pem", "server.pem", None),
            "key_file",
            "no private key",
        ),
        (
            files("server.pem", "renewed.key", None),
            "key_file",
            "not the key of the certificate",
        ),
        (
            files("server.pem", "server.key", Some("none.pem")),
            "client_ca_file",
            "cannot be read",
        ),
        (
            files("server.pem", "server.key", Some("server.key")),
            "client_ca_file",
            "no certificate",
        ),
    ] {
        let (found, told) = fault(&files);
        assert_eq!(found, key, "{told}");
        assert!(told.contains(problem), "{told}");
    }
}

#[test]
fn dates_are_judged_to_the_second() {
    let loaded = load(&files("server.pem", "server.key", None)).unwrap();
    let at = |seconds: i64| WallMillis(seconds * 1000);
    assert_eq!(loaded.misdated(at(loaded.not_after)), None);
    assert_eq!(
        loaded.misdated(at(loaded.not_after + 1)),
        Some("has expired")
    );
    assert_eq!(loaded.misdated(at(loaded.not_before)), None);
    assert_eq!(
        loaded.misdated(at(loaded.not_before - 1)),
        Some("is not valid yet")
    );
    let fortnight = 14 * 86_400;
    assert!(!loaded.ends_soon(at(loaded.not_after - fortnight)));
    assert!(loaded.ends_soon(at(loaded.not_after - fortnight + 1)));
}

#[test]
fn a_renewal_is_taken_when_it_is_whole_and_the_old_pair_goes_on_until_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let put = |from: &str, to: &str| {
        std::fs::copy(golden(from), path(to)).unwrap();
    };
    put("server.pem", "tls.crt");
    put("server.key", "tls.key");
    let tls = Tls::open(Files {
        cert_file: path("tls.crt"),
        key_file: path("tls.key"),
        client_ca_file: None,
    })
    .unwrap();
    let same = |before: &Arc<ServerConfig>| Arc::ptr_eq(before, &tls.config());
    let first = tls.config();
    assert!(!tls.look() && same(&first), "nothing is new");

    put("renewed.pem", "tls.crt");
    assert!(tls.look() && same(&first), "half of a pair is told");
    assert!(!tls.look() && same(&first), "once");
    put("renewed.key", "tls.key");
    assert!(tls.look() && !same(&first));
    let second = tls.config();

    put("expired.pem", "tls.crt");
    put("expired.key", "tls.key");
    assert!(tls.look() && same(&second), "expired already");
    std::fs::remove_file(path("tls.crt")).unwrap();
    assert!(tls.look() && same(&second), "gone");
    assert!(!tls.look());
    put("renewed.pem", "tls.crt");
    put("renewed.key", "tls.key");
    assert!(tls.look() && same(&second), "as it was");
    assert!(!tls.look());

    // As Kubernetes swaps a secret: a link to a folder that is replaced.
    for (folder, name) in [("1", "server"), ("2", "renewed")] {
        std::fs::create_dir(path(folder)).unwrap();
        put(&format!("{name}.pem"), &format!("{folder}/tls.crt"));
        put(&format!("{name}.key"), &format!("{folder}/tls.key"));
    }
    std::os::unix::fs::symlink("1", path("..data")).unwrap();
    let tls = Tls::open(Files {
        cert_file: path("..data/tls.crt"),
        key_file: path("..data/tls.key"),
        client_ca_file: None,
    })
    .unwrap();
    let first = tls.config();
    std::os::unix::fs::symlink("2", path("new")).unwrap();
    std::fs::rename(path("new"), path("..data")).unwrap();
    assert!(tls.look() && !Arc::ptr_eq(&first, &tls.config()));
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// A server that answers with what it knows of the client.
    async fn start(client_ca: Option<&str>, limits: Limits) -> Self {
        let tls = Tls::open(files("server.pem", "server.key", client_ca)).unwrap();
        let listener = Listener::bind_tcp("listen.api", ([127, 0, 0, 1], 0).into());
        let listener = listener.await.unwrap().with_tls(tls);
        assert!(listener.to_string().starts_with("https://127.0.0.1:"));
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let answer = async |_, peer: Peer| {
            let Some(secured) = peer.tls() else {
                return http::Response::new(Full::from("plain"));
            };
            let certificate = secured.certificate.as_ref();
            let name = certificate.and_then(|names| names.common_name.clone());
            let told = format!("{} {} {name:?}", secured.version, secured.cipher_suite);
            http::Response::new(Full::from(told))
        };
        let handler = move |request, peer| Box::pin(answer(request, peer));
        let task = tokio::spawn(serve(listener, handler, limits, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self, client: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, self.plain().await).await
    }

    /// What a request is answered; an error when the connection is not let in.
    async fn asked(&self, client: ClientConfig) -> io::Result<String> {
        let mut stream = self.connect(client).await?;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) => Ok(body.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn client(shown: Option<&str>, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let roots = roots(&std::fs::read(golden("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(cryptography::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let Some(shown) = shown else {
        return builder.with_no_client_auth();
    };
    let pem = std::fs::read(golden(&format!("{shown}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(golden(&format!("{shown}.key"))).unwrap();
    builder
        .with_client_auth_cert(certificates(&pem).unwrap(), key)
        .unwrap()
}

#[tokio::test]
async fn both_versions_are_spoken_and_told_as_cloudtrail_writes_them() {
    let server = Running::start(None, Limits::default()).await;
    let new = server.asked(client(None, &TLS13)).await.unwrap();
    assert_eq!(new, "TLSv1.3 TLS_AES_256_GCM_SHA384 None");
    let old = server.asked(client(None, &TLS12)).await.unwrap();
    assert_eq!(old, "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 None");
    let mut plain = server.plain().await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn with_an_authority_for_clients_nobody_else_gets_through_the_handshake() {
    let server = Running::start(Some("ca.pem"), Limits::default()).await;
    for version in [&TLS13, &TLS12] {
        let known = server.asked(client(Some("client"), version)).await;
        assert!(known.unwrap().ends_with("Some(\"collector\")"));
        for other in [None, Some("expired")] {
            let outcome = server.asked(client(other, version)).await;
            assert!(outcome.is_err(), "{other:?} {outcome:?}");
        }
    }
    server.stop().await;
    // Of another authority: here, itself.
    let server = Running::start(Some("renewed.pem"), Limits::default()).await;
    let outcome = server.asked(client(Some("client"), &TLS13)).await;
    assert!(outcome.is_err(), "{outcome:?}");
    server.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_finish_their_handshake_keep_nobody_out() {
    let limits = Limits {
        handshakes: 4,
        handshake_timeout: Duration::from_secs(3),
        ..Limits::default()
    };
    let server = Running::start(None, limits).await;
    let began = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = server.plain().await;
        // The first bytes of a handshake, and no more.
        stream.write_all(&[22, 3, 1]).await.unwrap();
        stalled.push(stream);
    }
    let served = server.asked(client(None, &TLS13)).await.unwrap();
    assert!(served.starts_with("TLSv1.3"));
    assert!(began.elapsed() < Duration::from_millis(2500), "{began:?}");
    for mut stream in stalled {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(2900),
        "the newest of them: {took:?}"
    );
    server.stop().await;
}
