//! Messages between two processes: a letter, a length, and bytes.

use std::io::{self, Read, Write};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The model is loaded: [`Hello`](crate::talk::Hello) as JSON.
    Hello,
    /// What was asked for cannot be: [`Fault`](crate::talk::Fault) as JSON.
    Fault,
    /// A run: [`Asked`](crate::talk::Asked) as a line of JSON, and an archive of arrays in their order.
    Inputs,
    /// What came of it: an archive of arrays.
    Outputs,
}

const KINDS: [(u8, Kind); 4] = [(b'H', Kind::Hello), (b'F', Kind::Fault), (b'I', Kind::Inputs), (b'O', Kind::Outputs)];

/// Bytes of one message: more is no message, but something else that was printed.
const MAX_BYTES: u64 = 1 << 36;

pub(crate) fn write(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    let letter = KINDS.iter().find(|(_, k)| *k == kind).map_or(0, |(l, _)| *l);
    to.write_all(&[letter])?;
    to.write_all(&(body.len() as u64).to_le_bytes())?;
    to.write_all(body)?;
    to.flush()
}

/// The next message; room is made for what comes, not for what is announced.
pub(crate) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let [letter, len @ ..] = head;
    let (len, kind) = (u64::from_le_bytes(len), KINDS.iter().find(|(l, _)| *l == letter));
    let Some((_, kind)) = kind.filter(|_| len <= MAX_BYTES) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what it prints is no message"));
    };
    let mut body = vec![];
    from.take(len).read_to_end(&mut body)?;
    if body.len() as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((*kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        let mut bytes = vec![];
        for (_, kind) in KINDS {
            write(&mut bytes, kind, b"abc").expect("memory");
        }
        let mut from = bytes.as_slice();
        for (_, kind) in KINDS {
            assert_eq!(read(&mut from).expect("a message"), (kind, b"abc".to_vec()));
        }
        assert_eq!(read(&mut from).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused_without_making_room_for_it() {
        for (bytes, kind) in [
            (&b"Hello, world"[..], io::ErrorKind::InvalidData),
            (b"H\x03\0\0\0\0\0\0\0ab", io::ErrorKind::UnexpectedEof),
            (b"H\0\0\0\0\x0f\0\0\0ab", io::ErrorKind::UnexpectedEof),
            (b"H\xff\xff\xff\xff\xff\xff\xff\xff", io::ErrorKind::InvalidData),
            (b"\0\0\0\0\0\0\0\0\0", io::ErrorKind::InvalidData),
            (b"H\x03", io::ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(read(&mut &*bytes).expect_err("no message").kind(), kind, "{bytes:?}");
        }
    }
}
