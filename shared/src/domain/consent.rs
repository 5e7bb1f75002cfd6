//! Messages by which a contact opts out of broadcasts, or back in: those that are wholly one of the configured words.

use std::str::FromStr;

use crate::domain::folding::folded;
use crate::domain::visible::trimmed;

/// The value of the configuration that stands for no words.
const NO_WORDS: &str = "off";

/// The change that a contact asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// No more broadcasts.
    OptOut,
    /// Broadcasts again.
    OptIn,
}

/// Words or phrases, each in the form in which they are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl FromStr for Words {
    type Err = &'static str;

    /// Parses words that are separated by commas; `off` stands for none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if trimmed(text) == NO_WORDS {
            return Ok(Self::default());
        }
        let words: Vec<_> = text.split(',').map(word).collect();
        match words.iter().any(String::is_empty) {
            true => Err("must be words separated by commas, or off"),
            false => Ok(Self(words)),
        }
    }
}

impl Words {
    /// Returns `true` if a message is wholly one of the words, in any case and whatever is around it that is no letter or digit.
    pub fn have(&self, message: &str) -> bool {
        let message = word(message);
        self.0.contains(&message)
    }

    /// Returns `true` if another list has a word of this one.
    pub fn overlap(&self, other: &Self) -> bool {
        self.0.iter().any(|word| other.0.contains(word))
    }
}

/// Returns a text folded, and without what is around its first and last letter or digit: `Stop!` and `ＳＴＯＰ` are `stop`. A text
/// without letters and digits, such as an emoji, is kept whole.
fn word(text: &str) -> String {
    let text = folded(trimmed(text));
    let word = text.trim_matches(|c: char| !c.is_alphanumeric());
    if word.is_empty() { trimmed(&text) } else { word }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_message_is_compared_without_case_and_forms() {
        let words: Words = "stop, Unsubscribe,abmelden bitte,отписаться,停止,ΤΈΛΟΣ,Schluß,🛑"
            .parse()
            .unwrap();
        for message in [
            "stop",
            " STOP\n",
            "Stop!",
            "\"stop\".",
            "ｓｔｏｐ",
            "\u{feff}stop\u{200b}",
            "unsubscribe",
            "Abmelden bitte",
            "ОТПИСАТЬСЯ",
            "停止。",
            "τέλος",
            "SCHLUSS",
            "🛑",
        ] {
            assert!(words.have(message), "{message}");
        }
        for message in [
            "",
            "!",
            "please stop",
            "stop it",
            "stopping",
            "stop stop",
            "unsub",
            "🛑🛑",
            "don't stop",
        ] {
            assert!(!words.have(message), "{message}");
        }
    }

    #[test]
    fn lists_are_parsed_and_compared() {
        let words = |text: &str| text.parse::<Words>();
        assert_eq!(words("off"), Ok(Words::default()));
        assert!(!Words::default().have("off"));
        assert!(words("stop,,go").is_err() && words(" ,").is_err());
        assert!(words("stop,end").unwrap().overlap(&words("END!").unwrap()));
        assert!(!words("stop").unwrap().overlap(&words("start").unwrap()));
    }
}
