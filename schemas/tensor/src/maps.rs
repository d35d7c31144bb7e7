//! Which memory is a map of a file, so that its pages can be given back.

use memmap2::Mmap;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The maps of this process, by address.
static MAPS: Mutex<BTreeMap<usize, Arc<Mmap>>> = Mutex::new(BTreeMap::new());

/// A map that is known as one as long as it lives.
pub(crate) struct Mapped(Arc<Mmap>);

impl Mapped {
    pub(crate) fn new(map: Mmap) -> Self {
        let map = Arc::new(map);
        MAPS.lock().unwrap_or_else(PoisonError::into_inner).insert(map.as_ptr() as usize, map.clone());
        Self(map)
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        MAPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.0.as_ptr() as usize));
    }
}

/// Gives back the whole pages among `bytes`, if they lie in a map; other memory stays as it is.
pub(crate) fn release(bytes: &[u8]) {
    let start = bytes.as_ptr() as usize;
    let map = {
        let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, map)) = maps.range(..=start).next_back() else { return };
        map.clone()
    };
    let from = start - map.as_ptr() as usize;
    if bytes.is_empty() || from.checked_add(bytes.len()).is_none_or(|end| end > map.len()) {
        return;
    }
    #[cfg(unix)]
    {
        #[expect(unsafe_code, reason = "the pages of a private map that was written to would be lost")]
        // SAFETY: the map is of a file and read-only, so that the same bytes are read from the file again.
        let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, bytes.len()) };
        // Advice that is not taken costs memory, no more.
        let _ = advised;
    }
}
