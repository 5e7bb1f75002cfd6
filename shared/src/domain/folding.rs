//! Texts in the forms in which they are compared and searched, whatever keyboard they were written with.

use std::ops::RangeInclusive;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

/// The accents of the Latin, Greek and Cyrillic scripts. Marks of other scripts are letters of their own.
const ACCENTS: RangeInclusive<char> = '\u{300}'..='\u{36F}';

/// Returns a text without its case and the forms of its characters: `ＳＴＯＰ` is `stop`.
pub fn folded(text: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    // Upper case first: it has one form for the letters of which lower case has two, such as ς and σ, or ß and ss.
    let text = normalizer.normalize(text).to_uppercase().to_lowercase();
    normalizer.normalize(&text).into_owned()
}

/// Returns a text as it is searched: folded, and without accents, so that `jose` finds José.
pub fn searched(text: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd();
    let folded = folded(text);
    let letters = decomposed.normalize(&folded);
    letters.chars().filter(|c| !ACCENTS.contains(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_name_is_found_in_any_script() {
        for (name, part) in [
            ("José Álvarez", "jose al"),
            ("jose", "JOSÉ"),
            ("Müßig", "MUSSI"),
            ("ΟΔΥΣΣΕΥΣ", "δυσσευς"),
            ("Иван Фёдоров", "федор"),
            ("ＡＮＡ", "ana"),
            ("田中 さくら", "さくら"),
            ("한지민", "지민"),
            ("नरेन्द्र", "नरेन्"),
            ("محمد", "حمد"),
            ("İpek", "ipek"),
            ("👋 Ana", "👋"),
        ] {
            assert!(searched(name).contains(&searched(part)), "{part} in {name}");
        }
        for (name, part) in [("José", "josh"), ("कि", "कु"), ("さくら", "サクラ")] {
            assert!(!searched(name).contains(&searched(part)), "{part} in {name}");
        }
    }
}
