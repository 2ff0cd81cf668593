//! The bytes of an answer in the pieces they lie in: what was encoded for it, and between it record batches as they lie in
//! the log's tail, which no answer copies. [`super::conn`] writes them with one call of the system for many pieces.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

#[derive(Debug, Default)]
pub struct Chunks {
    /// None is empty.
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Chunks {
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
}

impl From<BytesMut> for Chunks {
    fn from(whole: BytesMut) -> Chunks {
        let mut chunks = Chunks::default();
        chunks.push(whole.freeze());
        chunks
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |first| first.as_ref())
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in out.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "{count} of {} bytes", self.bytes);
        self.bytes -= count;
        let mut left = count;
        while left > 0 {
            // There is a first one as long as bytes are left.
            let Some(first) = self.chunks.front_mut() else { return };
            if left < first.len() {
                return first.advance(left);
            }
            left -= first.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_text_however_it_is_taken() {
        let text = b"one log, two protocols";
        for step in 1..=text.len() {
            let mut chunks = Chunks::from(BytesMut::from(&text[..3]));
            chunks.push(Bytes::new());
            chunks.push(Bytes::from_static(&text[3..4]));
            chunks.push(Bytes::from_static(&text[4..]));
            let mut taken = Vec::new();
            while chunks.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = chunks.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(seen.len(), chunks.remaining());
                assert!(seen.starts_with(chunks.chunk()) && !chunks.chunk().is_empty());
                let count = step.min(seen.len());
                taken.extend_from_slice(&seen[..count]);
                chunks.advance(count);
            }
            assert_eq!(taken, text);
        }
    }
}
