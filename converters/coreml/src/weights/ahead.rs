//! Bytes that one thread makes while another writes what was made before.

use std::{
    io::{self, Write},
    mem,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

/// Bytes that are handed over at once, and how many of such buffers may wait.
const BUFFER: usize = 1 << 20;
const WAITING: usize = 4;

/// Writes to `w` what `make` writes. To make bytes, such as by casts of weights, takes as long as to write them, and so both
/// together take half the time.
///
/// # Panics
/// Where `make` panics.
pub(super) fn write_ahead(
    w: &mut dyn Write,
    make: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> io::Result<()> {
    thread::scope(|scope| {
        let (full, filled) = sync_channel(WAITING);
        let (empty, emptied) = channel();
        let maker = scope.spawn(move || {
            let mut ahead = Ahead { buffer: Vec::with_capacity(BUFFER), full, emptied };
            make(&mut ahead)?;
            ahead.flush()
        });
        let written = drain(w, filled, &empty);
        // What keeps the maker from its end is that nobody writes, of which the error is known.
        let made = maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(made)
    })
}

fn drain(w: &mut dyn Write, filled: Receiver<Vec<u8>>, empty: &Sender<Vec<u8>>) -> io::Result<()> {
    for mut buffer in filled {
        w.write_all(&buffer)?;
        buffer.clear();
        // Nobody needs it any more where the maker has come to its end.
        let _ = empty.send(buffer);
    }
    w.flush()
}

struct Ahead {
    buffer: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER {
            self.flush()?;
        }
        let n = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = self.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let full = mem::replace(&mut self.buffer, next);
        self.full.send(full).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A disk without room.
    pub(in super::super) struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_arrive_in_order() {
        let all: Vec<u8> = (0..5 * BUFFER + 7).map(|i| (i % 251) as u8).collect();
        let mut out = vec![];
        write_ahead(&mut out, |w| all.chunks(1000).try_for_each(|part| w.write_all(part))).expect("memory");
        assert!(out == all);
    }

    #[test]
    fn errors_of_either_side_end_both() {
        let endless = |w: &mut dyn Write| -> io::Result<()> {
            loop {
                w.write_all(&[0; 4096])?;
            }
        };
        assert_eq!(write_ahead(&mut Full, endless).expect_err("full").kind(), io::ErrorKind::StorageFull);
        let fails = |_: &mut dyn Write| Err(io::ErrorKind::InvalidData.into());
        assert_eq!(write_ahead(&mut vec![], fails).expect_err("fails").kind(), io::ErrorKind::InvalidData);
    }
}
