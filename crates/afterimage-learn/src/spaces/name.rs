//! Names the space of a head.
use crate::head::Head;
use crate::state_dict::StateDict;

/// Names the space of `head` over this encoder: 16 hexadecimal digits. Two heads share a space only if they are the
/// same, bit for bit, over the same latents; embeddings of different spaces must not be compared.
pub fn space_of(encoder_sha256: &str, card_hash: &str, head: &Head) -> String {
    let mut contents = StateDict::default();
    contents.text("encoder_sha256", encoder_sha256);
    contents.text("card_hash", card_hash);
    contents.head("", head);
    let mut space = contents.checksum();
    space.truncate(16);
    space
}
