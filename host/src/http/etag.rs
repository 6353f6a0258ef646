//! The entity tag of a file (RFC 9110 §8.8.3): a strong one, made of what the file system says, not of the content.
//!
//! It mixes three numbers. The *modification time in nanoseconds* changes with every write. The *size* tells apart what
//! two writes within one tick of the clock leave. The *inode* tells apart a file that was renamed into place with
//! its old time kept, which is what deployments by archive or by reproducible build do. Two writes of the same size
//! in one tick could share a tag; since Linux 6.13 the usual file systems never give a time again that has been looked at,
//! and who has made a tag has looked.
//! The numbers are mixed rather than shown because inode numbers are nobody's business.

/// A strong entity tag, with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag([u8; 18]);

impl ETag {
    /// The tag of a file with this inode, size in bytes and modification time in nanoseconds since 1970.
    pub fn of_file(inode: u64, size: u64, modified_ns: i128) -> ETag {
        let mut hash = 0u64;
        for word in [inode, size, modified_ns as u64, (modified_ns >> 64) as u64] {
            hash = mix(hash ^ word);
        }
        let mut text = *b"\"0000000000000000\"";
        for (index, digit) in text[1..17].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(hash >> (60 - 4 * index) & 15) as usize];
        }
        ETag(text)
    }

    /// The tag as it is sent, quotes included.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an entity tag of ours is ASCII")
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

    #[test]
    fn a_tag_is_sixteen_hex_digits_in_quotes() {
        let tag = ETag::of_file(1, 2, 3);
        assert!(tag.as_str().starts_with('"') && tag.as_str().ends_with('"'));
        assert_eq!(tag.as_str().len(), 18);
        assert!(tag.as_str().trim_matches('"').bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_tag_stays_the_same_across_restarts() {
        // Clients keep tags for years: a change here costs every one of them a download.
        assert_eq!(ETag::of_file(1_234_567, 1024, 1_700_000_000_123_456_789).as_str(), "\"e9d0c4019d167ec4\"");
    }

    #[test]
    fn a_change_of_any_number_changes_the_tag() {
        let mut tags = HashSet::new();
        for inode in 0..10 {
            for size in 0..10 {
                for modified_ns in (-5..5).chain([i128::MAX, i128::MIN]) {
                    assert!(tags.insert(ETag::of_file(inode, size, modified_ns).as_str().to_owned()));
                }
            }
        }
    }
}
