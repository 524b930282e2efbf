//! What the first bytes of an input decide.

use bytes::BytesMut;

/// Takes decisions off the front of an input.
pub(crate) struct Steering<'a>(&'a [u8]);

impl<'a> Steering<'a> {
    /// Over the whole input.
    pub(crate) fn new(data: &'a [u8]) -> Steering<'a> {
        Steering(data)
    }

    /// The next byte, or 0.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Where to cut what follows: sizes of pieces, from three bytes, in turn.
    pub(crate) fn cuts(&mut self) -> [usize; 3] {
        [self.byte(), self.byte(), self.byte()].map(|byte| usize::from(byte) + 1)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Appends `wire` piece by piece to a buffer, as a socket would, and calls
/// `consume` after each. `None` for `cuts`: all at once.
pub(crate) fn feed(wire: &[u8], cuts: Option<[usize; 3]>, mut consume: impl FnMut(&mut BytesMut)) -> BytesMut {
    let mut input = BytesMut::new();
    let mut rest = wire;
    let mut sizes = cuts.into_iter().flatten().collect::<Vec<_>>().into_iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        input.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        consume(&mut input);
    }
    input
}
