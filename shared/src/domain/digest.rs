//! The digest of a rendered text, by which a lookup recognizes the message.

use sha2::{Digest, Sha256};

/// Returns 128 bits of the text's SHA-256 in hexadecimal, without the white space around the text, which Messenger may not
/// keep.
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.trim());
    let bytes = digest.iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
