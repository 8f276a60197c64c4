//! The chunked coding (RFC 9112, section 7.1), decoded as it comes.
//!
//! Owns its states. Never keeps data: pieces go to the caller. Extensions and trailers are bounded and dropped.

use super::Malformed;

/// Largest sum of one chunk's size line, or of all trailers, in bytes.
const LINE_BYTES_MAX: u16 = 4096;

/// Where the decoder is in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends it all.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
    End,
}

/// A decoder of one chunked body.
#[derive(Clone, Copy, Debug)]
pub struct Chunked {
    at: At,
    left: u64,
    digits: u8,
    line: u16,
}

impl Default for Chunked {
    fn default() -> Self {
        Chunked { at: At::Size, left: 0, digits: 0, line: 0 }
    }
}

impl Chunked {
    /// Whether the empty line after the trailers was read.
    pub fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Decodes what is there, gives each piece of data to `data`, and returns how many bytes were used: all of them, or
    /// those up to the body's end.
    ///
    /// # Errors
    /// When the coding is broken.
    pub fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::End {
            if self.at == At::Data {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                data(&bytes[used..used + len]);
                used += len;
                self.left -= len as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.step(bytes[used])?;
                used += 1;
            }
        }
        Ok(used)
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(Malformed("a chunk line or trailers too long"));
        }
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Size, _) => return self.digit(byte),
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b' '..=b'~' | b'\t') => At::Extension,
            (At::SizeLf, b'\n') => self.after_size(),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                self.digits = 0;
                At::Size
            }
            (At::Trailer, b'\r') => At::EndLf,
            (At::Trailer | At::TrailerLine, b' '..=b'~' | b'\t') => At::TrailerLine,
            (At::TrailerLine, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::EndLf, b'\n') => At::End,
            _ => return Err(Malformed("broken chunked coding")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), Malformed> {
        let digit = (byte as char).to_digit(16).ok_or(Malformed("a chunk size that is no number"))?;
        self.left = self
            .left
            .checked_mul(16)
            .and_then(|l| l.checked_add(digit.into()))
            .ok_or(Malformed("a chunk size too large"))?;
        self.digits = self.digits.saturating_add(1);
        Ok(())
    }

    fn after_size(&mut self) -> At {
        self.line = 0;
        if self.left == 0 { At::Trailer } else { At::Data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(coded: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut chunked, mut data, mut used) = (Chunked::default(), Vec::new(), 0);
        for piece in coded.chunks(step) {
            let took = chunked.feed(piece, |d| data.extend_from_slice(d))?;
            used += took;
            if took < piece.len() {
                break;
            }
        }
        Ok((data, used, chunked.is_done()))
    }

    #[test]
    fn any_split_decodes_alike() {
        let coded = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nT: v\r\n\r\nnext";
        for step in 1..coded.len() {
            assert_eq!(decode(coded, step), Ok((b"abc0123456789".to_vec(), coded.len() - 4, true)), "step {step}");
        }
    }

    #[test]
    fn broken_codings_are_refused() {
        for wrong in
            [&b"\r\n"[..], b"g\r\n", b"3\nabc", b"3\r\nabcd\r\n", b"-3\r\n", b" 3\r\n", b"fffffffffffffffff\r\n"]
        {
            assert!(decode(wrong, 64).is_err(), "{:?}", wrong.escape_ascii().to_string());
        }
    }
}
