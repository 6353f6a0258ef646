//! The entity tag of a file (RFC 9110 §8.8.3), made of what the file system says, not of the content.
//!
//! It mixes four numbers. The *time of change* is set by the kernel alone, for any change of content, and nobody can set it
//! back: two contents of one inode differ in it. The *inode* tells apart a file that was renamed into place. The *size* and the
//! *modification time* are there in case that a file system takes the time of change less seriously.
//!
//! **When it is strong.** §8.8.1: a strong validator "changes value whenever a change occurs to the representation data that would
//! be observable in the content of a 200 (OK) response to GET". Two changes within one tick of the file system's clock may leave the
//! same time of change, so as long as that tick may last the tag is a weak one, and *another* one than the strong one that comes after it:
//! else the weak comparison of `If-None-Match` would take a copy of what was there between the two changes for current, for ever.
//!
//! The numbers are mixed rather than shown because inode numbers are nobody's business.

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its number in its file system.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// When its content last changed, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When anything of it last changed, in nanoseconds since 1970.
    pub changed_ns: i128,
    /// Whether every change from now on makes it another state.
    pub is_settled: bool,
    /// 0, or another number for a representation that says of the same bytes something else, such as that they are compressed.
    pub form: u8,
}

/// An entity tag, with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag {
    text: [u8; 20],
    /// Where it begins: a weak one has `W/` before its quotes.
    start: u8,
}

impl ETag {
    /// The tag of a file in this state.
    pub fn of_file(state: &State) -> ETag {
        let State { inode, size, modified_ns, changed_ns, is_settled, form } = *state;
        let mut hash = mix(u64::from(form) << 1 | u64::from(!is_settled));
        for time in [modified_ns, changed_ns] {
            hash = mix(hash ^ time as u64);
            hash = mix(hash ^ (time >> 64) as u64);
        }
        for word in [inode, size] {
            hash = mix(hash ^ word);
        }
        let mut text = *b"W/\"0000000000000000\"";
        for (index, digit) in text[3..19].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(hash >> (60 - 4 * index) & 15) as usize];
        }
        ETag { text, start: if is_settled { 2 } else { 0 } }
    }

    /// The tag as it is sent, quotes included.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[usize::from(self.start)..]).expect("an entity tag of ours is ASCII")
    }
}

/// Spreads each bit over the whole word, so that near numbers have far hashes. It is a bijection (the finalizer of
/// splitmix64 after an offset), so files that differ in one of the numbers only never share a tag.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const STATE: State = State {
        inode: 1_234_567,
        size: 1024,
        modified_ns: 1_700_000_000_123_456_789,
        changed_ns: 1_700_000_000_123_456_789,
        is_settled: true,
        form: 0,
    };

    #[test]
    fn a_tag_is_sixteen_hex_digits_in_quotes() {
        let tag = ETag::of_file(&STATE);
        assert!(tag.as_str().starts_with('"') && tag.as_str().ends_with('"'));
        assert_eq!(tag.as_str().len(), 18);
        assert!(tag.as_str().trim_matches('"').bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_tag_stays_the_same_across_restarts() {
        // Clients keep tags for years: a change here costs every one of them a download.
        assert_eq!(ETag::of_file(&STATE).as_str(), "\"18f633fa8a9c2a13\"");
    }

    #[test]
    fn what_may_change_unseen_has_a_weak_tag_that_the_strong_one_does_not_match() {
        let weak = ETag::of_file(&State { is_settled: false, ..STATE });
        assert!(weak.as_str().starts_with("W/\"") && weak.as_str().len() == 20);
        assert_ne!(&weak.as_str()[2..], ETag::of_file(&STATE).as_str());
    }

    #[test]
    fn a_change_of_any_number_changes_the_tag() {
        let mut tags = HashSet::new();
        let times = || (-3..3).chain([i128::MAX, i128::MIN]);
        for inode in 0..5 {
            for size in 0..5 {
                for modified_ns in times() {
                    for changed_ns in times() {
                        for form in 0..4 {
                            for is_settled in [true, false] {
                                let state = State { inode, size, modified_ns, changed_ns, is_settled, form };
                                assert!(tags.insert(ETag::of_file(&state).as_str().to_owned()), "{state:?}");
                            }
                        }
                    }
                }
            }
        }
    }
}
