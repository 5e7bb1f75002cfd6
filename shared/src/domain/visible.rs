//! The characters that a reader sees, by Unicode's properties.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Characters that are drawn as a blank although no property of theirs says so: the Braille cell without dots, the null
/// note head, the filler of Khitan and the blanks of Egyptian hieroglyphs.
const DRAWN_BLANK: [char; 5] = ['\u{2800}', '\u{1D159}', '\u{16FE4}', '\u{13441}', '\u{13442}'];
/// Characters that fill a place and mean nothing at the ends of a text: the zero width space, the word joiner, the byte order
/// mark and the fillers of Hangul.
const FILLERS: [char; 5] = ['\u{200B}', '\u{2060}', '\u{FEFF}', '\u{3164}', '\u{FFA0}'];

/// Returns true if a reader of an id sees this character: it is no space, control, format or filler character, and has a
/// meaning that Unicode assigned.
pub fn is_visible(character: char) -> bool {
    // Most ids are digits.
    character.is_ascii_graphic() || !(is_empty(character) || GeneralCategoryGroup::Other.contains(category(character)))
}

/// Returns true if a reader sees nothing of the text.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(is_empty)
}

/// Returns the text without the blanks at its ends. Joiners, variation selectors and marks of direction stay: they belong to
/// the characters beside them.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || FILLERS.contains(&c) || DRAWN_BLANK.contains(&c))
}

/// Returns true if the character alone is not seen. A character that is private or not assigned yet may be an emoji that is
/// newer than this program, so it counts as seen.
fn is_empty(character: char) -> bool {
    character.is_whitespace()
        || DRAWN_BLANK.contains(&character)
        || matches!(category(character), GeneralCategory::Control | GeneralCategory::Format)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

fn category(character: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One character or more of each kind: spaces, controls, formats, fillers, joiners, selectors, tags, blanks, private and
    /// unassigned ones.
    #[test]
    fn invisible_characters_are_of_every_kind() {
        for c in [
            ' ',
            '\t',
            '\n',
            '\u{0}',
            '\u{7F}',
            '\u{85}',
            '\u{A0}',
            '\u{AD}',
            '\u{34F}',
            '\u{61C}',
            '\u{115F}',
            '\u{1160}',
            '\u{1680}',
            '\u{17B4}',
            '\u{180B}',
            '\u{180E}',
            '\u{2000}',
            '\u{200B}',
            '\u{200C}',
            '\u{200D}',
            '\u{200E}',
            '\u{2028}',
            '\u{2029}',
            '\u{202A}',
            '\u{202C}',
            '\u{202F}',
            '\u{205F}',
            '\u{2060}',
            '\u{2063}',
            '\u{2069}',
            '\u{206F}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{FE0F}',
            '\u{FEFF}',
            '\u{FFA0}',
            '\u{FFF9}',
            '\u{1BCA0}',
            '\u{1D159}',
            '\u{1D173}',
            '\u{E0001}',
            '\u{E007F}',
            '\u{E0100}',
        ] {
            assert!(!is_visible(c), "U+{:04X}", u32::from(c));
            assert!(is_blank(&c.to_string()), "U+{:04X}", u32::from(c));
        }
        for c in ['\u{E000}', '\u{10FFFD}', '\u{378}', '\u{FFFE}', '\u{FDD0}'] {
            assert!(!is_visible(c), "U+{:04X}", u32::from(c));
        }
        for c in [
            '0', 'a', '-', '"', 'é', 'ß', 'ज', '漢', '한', '🙂', '\u{301}', '\u{FFFD}', '،', '€',
        ] {
            assert!(is_visible(c), "{c}");
            assert!(!is_blank(&c.to_string()), "{c}");
        }
    }

    #[test]
    fn trimming_leaves_what_belongs_to_a_character() {
        for (text, expected) in [
            ("\u{FEFF}\u{A0} Ana\t\u{200B}", "Ana"),
            ("\u{3164}Ana María\u{2800}", "Ana María"),
            ("❤\u{FE0F}", "❤\u{FE0F}"),
            ("👩\u{200D}👧", "👩\u{200D}👧"),
            ("\u{2068}محمد\u{2069}", "\u{2068}محمد\u{2069}"),
            ("क्\u{200D}", "क्\u{200D}"),
            (" \u{200B} ", ""),
        ] {
            assert_eq!(trimmed(text), expected);
        }
    }
}
