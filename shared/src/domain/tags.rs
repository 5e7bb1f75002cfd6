//! Changes of the tags of many contacts.

/// The tags that each contact is to have, and those that it is to lose. No tag is both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// Tags to add.
    pub add: Vec<String>,
    /// Tags to remove.
    pub remove: Vec<String>,
}

impl TagChange {
    /// Returns the tags of a contact after the change, or `None` if it changes nothing. Tags keep their order; new ones come last.
    pub fn of(&self, tags: &[String]) -> Option<Vec<String>> {
        let kept = tags.iter().filter(|tag| !self.remove.contains(tag));
        let added = self.add.iter().filter(|tag| !tags.contains(tag));
        let changed: Vec<_> = kept.chain(added).cloned().collect();
        (changed != tags).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_made_once_and_keeps_the_order() {
        let list = |tags: &[&str]| -> Vec<_> { tags.iter().map(|tag| (*tag).to_owned()).collect() };
        let change = TagChange {
            add: list(&["vip", "new"]),
            remove: list(&["old"]),
        };
        for (before, after) in [
            (list(&[]), Some(list(&["vip", "new"]))),
            (
                list(&["a", "old", "vip", "b", "old"]),
                Some(list(&["a", "vip", "b", "new"])),
            ),
            (list(&["new", "vip"]), None),
        ] {
            assert_eq!(change.of(&before), after, "{before:?}");
            assert_eq!(after.and_then(|after| change.of(&after)), None);
        }
    }
}
