//! Received bytes, taken from the front.

/// What is left of some received bytes. Every `take_*` returns `None` when too little is left.
///
/// Nothing here indexes, so nothing here panics, whatever a length field claims.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// One byte.
    pub fn take_u8(&mut self) -> Option<u8> {
        self.take_array::<1>().map(|[byte]| byte)
    }

    /// A big-endian number of two bytes.
    pub fn take_u16(&mut self) -> Option<u16> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// A big-endian number of four bytes.
    pub fn take_u32(&mut self) -> Option<u32> {
        self.take_array().map(u32::from_be_bytes)
    }

    /// A big-endian number of eight bytes.
    pub fn take_u64(&mut self) -> Option<u64> {
        self.take_array().map(u64::from_be_bytes)
    }

    /// The next `count` bytes.
    pub fn take_bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count)?;
        self.rest = tail;
        Some(head)
    }

    /// Bytes behind a length of one byte.
    pub fn take_short(&mut self) -> Option<&'a [u8]> {
        let count = self.take_u8()?;
        self.take_bytes(usize::from(count))
    }

    /// Bytes behind a length of two bytes.
    pub fn take_long(&mut self) -> Option<&'a [u8]> {
        let count = self.take_u16()?;
        self.take_bytes(usize::from(count))
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_big_endian_and_leave_the_front() {
        let mut cursor = Cursor::new(&[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 9]);
        assert_eq!(cursor.take_u8(), Some(1));
        assert_eq!(cursor.take_u16(), Some(2));
        assert_eq!(cursor.take_u32(), Some(3));
        assert_eq!(cursor.take_u64(), Some(4));
        assert_eq!(cursor.take_rest(), &[9]);
        assert_eq!(cursor.take_rest(), &[] as &[u8]);
    }

    #[test]
    fn too_little_is_none() {
        assert_eq!(Cursor::new(&[]).take_u8(), None);
        assert_eq!(Cursor::new(&[0]).take_u16(), None);
        assert_eq!(Cursor::new(&[0; 3]).take_u32(), None);
        assert_eq!(Cursor::new(&[0; 7]).take_u64(), None);
        assert_eq!(Cursor::new(&[2, 7]).take_short(), None, "the length claims one byte more");
        assert_eq!(Cursor::new(&[0, 2, 7]).take_long(), None, "the length claims one byte more");
        assert_eq!(Cursor::new(&[1, 7]).take_short(), Some(&[7][..]));
        assert_eq!(Cursor::new(&[0, 1, 7]).take_long(), Some(&[7][..]));
    }
}
