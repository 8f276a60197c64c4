//! Slots under stable small numbers, with generations so that an event for a connection that is gone is told apart.
//!
//! Owns numbering and reuse. Never knows what it keeps.

/// A growing table of values with tokens.
pub struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// The token that the next [`Slab::insert`] will use.
    pub fn next_token(&self) -> u64 {
        match self.free.last() {
            Some(&index) => token(index, self.slots[index as usize].0),
            None => token(self.slots.len() as u32, 0),
        }
    }

    /// Keeps a value and returns its token.
    pub fn insert(&mut self, value: T) -> u64 {
        let at = self.next_token();
        match self.free.pop() {
            Some(index) => self.slots[index as usize].1 = Some(value),
            None => self.slots.push((0, Some(value))),
        }
        at
    }

    /// The value under a token, if it is still the same one.
    pub fn get_mut(&mut self, at: u64) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(at as u32 as usize)?;
        if *generation == (at >> 32) as u32 { value.as_mut() } else { None }
    }

    /// Takes the value out; its token is never used again.
    pub fn remove(&mut self, at: u64) -> Option<T> {
        self.get_mut(at)?;
        let slot = &mut self.slots[at as u32 as usize];
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(at as u32);
        slot.1.take()
    }
}

/// Index in the low half, generation in the high one.
fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_value_only() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        let expected = slab.next_token();
        let c = slab.insert('c');
        assert_eq!(c, expected);
        assert_ne!(c, a);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!((slab.get_mut(b).copied(), slab.get_mut(c).copied()), (Some('b'), Some('c')));
    }
}
