//! The certificate of the api listener: that it is in its time. Whether it can be used at all was looked at with the configuration.

use super::Findings;
use crate::clock::WallMillis;
use crate::config::Config;
use crate::server::tls;

pub(super) fn check(config: &Config, now: WallMillis, findings: &mut Findings) {
    const KEY: &str = "listen.tls.cert_file";
    let Some(files) = &config.listen.tls else {
        return;
    };
    let shown = files.cert_file.display();
    let loaded = match tls::load(files) {
        Ok(loaded) => loaded,
        Err(error) => {
            let hint = "it was good a moment ago: validate again";
            return findings.mistake(KEY, shown, error.to_string(), hint);
        }
    };
    let end = loaded.end();
    if let Some(problem) = loaded.misdated(now) {
        let problem = format!("holds a certificate that {problem} (its end is {end})");
        findings.mistake(KEY, shown, problem, "renew it: every client refuses it");
    } else if loaded.ends_soon(now) {
        findings.warn(
            KEY,
            format!("{shown} holds a certificate that ends soon, at {end}"),
        );
    }
}
