//! Typed handles and the arenas they point into.

use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    num::NonZeroU32,
    ops::{Index, IndexMut},
};

/// A `Copy` reference to a slot of an [`Arena`]; `Option<Handle>` takes no more room.
pub struct Handle<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Handle<T> {
    /// The slot's number, for side tables.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The handle of slot `index`.
    ///
    /// # Panics
    /// Where `index` exceeds 32 bits: no arena holds so many.
    pub fn new(index: usize) -> Self {
        let raw = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(raw.expect("an arena holds fewer than 2^32 slots"), PhantomData)
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
impl<T> PartialEq for Handle<T> {
    fn eq(&self, o: &Self) -> bool {
        self.0 == o.0
    }
}
impl<T> Eq for Handle<T> {}
impl<T> PartialOrd for Handle<T> {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl<T> Ord for Handle<T> {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        self.0.cmp(&o.0)
    }
}
impl<T> Hash for Handle<T> {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.0.hash(h);
    }
}
impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.index())
    }
}

/// Slots that are never reused: a stale handle is always caught, never silently re-aimed.
#[derive(Clone, Debug)]
pub struct Arena<T>(Vec<Option<T>>);

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T> Arena<T> {
    /// Adds a slot.
    pub fn push(&mut self, value: T) -> Handle<T> {
        self.0.push(Some(value));
        Handle::new(self.0.len() - 1)
    }

    /// The slot's value; `None` where it was taken.
    pub fn get(&self, h: Handle<T>) -> Option<&T> {
        self.0.get(h.index())?.as_ref()
    }

    /// Empties the slot.
    pub fn take(&mut self, h: Handle<T>) -> Option<T> {
        self.0.get_mut(h.index())?.take()
    }

    /// Slots ever made, taken ones included: the length of a side table.
    pub fn slots(&self) -> usize {
        self.0.len()
    }
}

impl<T> Index<Handle<T>> for Arena<T> {
    type Output = T;
    fn index(&self, h: Handle<T>) -> &T {
        self.get(h).expect("a live handle of this arena")
    }
}

impl<T> IndexMut<Handle<T>> for Arena<T> {
    fn index_mut(&mut self, h: Handle<T>) -> &mut T {
        self.0.get_mut(h.index()).and_then(Option::as_mut).expect("a live handle of this arena")
    }
}
