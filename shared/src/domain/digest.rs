//! The digest of a rendered text, by which a lookup recognizes the message.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// Returns 128 bits of the text's SHA-256 in hexadecimal, without what Messenger may not keep: the white space around the
/// text, and the kind of its line ends.
pub fn digest(text: &str) -> String {
    digest_as_is(&with_line_feeds(text))
}

/// Returns `true` if a digest is that of a text as Messenger shows it. An earlier version left line ends as they were, and its
/// digests must still be recognized.
pub fn is_digest_of(wanted: &str, shown: &str) -> bool {
    wanted == digest(shown) || wanted == digest_as_is(shown)
}

/// Returns the text with a line feed at the end of each line, in place of a carriage return with or without one.
pub fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

fn digest_as_is(text: &str) -> String {
    let digest = Sha256::digest(text.trim());
    let bytes = digest.iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_surrounding_white_space_do_not_matter() {
        let wanted = digest("Hello\r\nfrom\rthe shop\r\n");
        for shown in [
            "Hello\nfrom\nthe shop",
            "Hello\r\nfrom\r\nthe shop",
            " Hello\rfrom\nthe shop",
        ] {
            assert!(is_digest_of(&wanted, shown), "{shown:?}");
        }
        assert!(!is_digest_of(&wanted, "Hello from the shop"));
        assert_eq!(with_line_feeds("a\r\n\r\nb\rc\n"), "a\n\nb\nc\n");
    }

    #[test]
    fn digest_of_an_earlier_version_is_recognized() {
        assert!(is_digest_of(
            &digest_as_is("Hello\r\nfrom the shop"),
            "Hello\r\nfrom the shop"
        ));
    }
}
