//! The client against servers whose certificates prove nothing, or do.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::clock::Moment;
use crate::domain::answer::Verdict;
use crate::gateway::tests::{config, http, order, wrapped};
use crate::gateway::{ConnectStep, ImojeClient, NoAnswer, NotSent, PostAnswer, install_crypto};

/// Who signs certificates.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            key,
        }
    }

    /// What a server shows that is `host` until the end of the year `until`.
    fn certify(&self, host: &str, until: i32) -> ServerConfig {
        install_crypto();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let shown = (params.signed_by(&key, &self.certificate, &self.key)).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![shown.der().clone()], key)
            .unwrap()
    }
}

/// A server on this machine that settles one debit. Returns its address, and in the end what it was sent.
fn serve(shown: ServerConfig) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}/v1/merchant", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut session = ServerConnection::new(Arc::new(shown)).unwrap();
        let mut stream = Stream::new(&mut session, &mut tcp);
        let (mut sent, mut bytes) = (Vec::new(), [0; 4096]);
        // The body is a JSON object, and nothing before it ends like one.
        while !sent.ends_with(b"}") {
            match stream.read(&mut bytes) {
                Ok(length @ 1..) => sent.extend_from_slice(&bytes[..length]),
                // It was hung up on.
                Ok(0) | Err(_) => return sent,
            }
        }
        stream.write_all(&http(200, &wrapped("settled"))).unwrap();
        sent
    });
    (base_url, server)
}

/// Debits at a server that shows this, as somebody who believes `authority`. Returns also whether the server was sent anything.
async fn debit(shown: ServerConfig, authority: &Authority) -> (Result<PostAnswer, NoAnswer>, bool) {
    let (base_url, server) = serve(shown);
    let root = reqwest::Certificate::from_der(authority.certificate.der()).unwrap();
    let client = ImojeClient::trusting(config(&base_url), vec![root]).unwrap();
    let answer = client.debit(&order(), Moment::now()).await;
    drop(client);
    let sent = tokio::task::spawn_blocking(|| server.join().unwrap());
    (answer, !sent.await.unwrap().is_empty())
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_means_that_nothing_was_sent_and_is_told() {
    let (ours, unknown) = (Authority::named("ours"), Authority::named("unknown"));
    let host = "127.0.0.1";
    for (shown, told) in [
        (unknown.certify(host, 4000), "UnknownIssuer"),
        (ours.certify("imoje.example", 4000), "not valid for name"),
        (ours.certify(host, 2025), "expired"),
    ] {
        let (answer, was_sent) = debit(shown, &ours).await;
        match answer {
            Err(NoAnswer::NotSent(NotSent::Connect(failure))) => {
                assert_eq!(failure.step, ConnectStep::Tls, "{failure}");
                assert!(failure.detail.contains(told), "{told}: {failure}");
            }
            other => panic!("{told}: {other:?}"),
        }
        assert!(!was_sent, "{told}");
    }
    // With all of it right the debit leaves.
    let (answer, was_sent) = debit(ours.certify(host, 4000), &ours).await;
    let verdict = answer.unwrap().verdict;
    assert!(
        matches!(verdict, Verdict::Settled { .. }) && was_sent,
        "{verdict:?}"
    );
}
