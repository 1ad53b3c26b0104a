//! A value that is replaced as a whole while others look at it.

use std::sync::{Arc, PoisonError, RwLock};

/// What is in force. Clones are the same handle. Whoever looks has what was in force then, for as
/// long as it wants; the lock is held for copying a pointer.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// `value` is in force.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// What is in force.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on `value` is.
    pub fn set(&self, value: impl Into<Arc<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looked_keeps_what_it_saw() {
        let live = Live::new(1);
        let (other, before) = (live.clone(), live.get());
        other.set(2);
        assert_eq!((*before, *live.get()), (1, 2));
    }
}
