//! The HMAC with which Messenger's callers and webhooks prove that they know the app secret.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Returns the hexadecimal HMAC-SHA256: of a webhook's body for its signature, of an access token for its
/// `appsecret_proof`.
pub fn hmac(secret: &SecretString, bytes: &[u8]) -> String {
    let key = secret.expose_secret().as_bytes();
    // A key may have any length, so this does not fail.
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(bytes).finalize());
    let mac = mac.map(|mac| mac.into_bytes()).unwrap_or_default();
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second test case of RFC 4231, <https://datatracker.ietf.org/doc/html/rfc4231#section-4.3>.
    #[test]
    fn hmac_matches_rfc_4231() {
        let key = SecretString::from("Jefe");

        assert_eq!(
            hmac(&key, b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
