//! Header compression (RFC 7541): a decoder of everything, and the few forms that are sent.
//!
//! Owns the tables. Never sends a Huffman code: what is sent is made once and then referred to.

use super::fields::Fields;
use super::huffman;
use crate::http::Malformed;
use std::collections::VecDeque;

/// Bytes that the dynamic table may hold unless it is agreed otherwise.
pub const TABLE_BYTES: usize = 4096;
/// What an entry costs beside its name and value.
const ENTRY_BYTES: usize = 32;
/// Bytes of the names and values of one block that are decoded at most.
const FIELDS_BYTES_MAX: usize = 256 * 1024;

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    name_len: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + ENTRY_BYTES
    }
}

/// Reads the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    size: usize,
    size_max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { table: VecDeque::new(), size: 0, size_max: TABLE_BYTES, name: Vec::new(), value: Vec::new() }
    }
}

impl Decoder {
    /// Reads a whole block.
    ///
    /// # Errors
    /// When it is none; the connection has to end then.
    pub fn decode(&mut self, mut block: &[u8], fields: &mut Fields) -> Result<(), Malformed> {
        fields.clear();
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = take_number(&mut block, 7)?;
                    self.with(index, |name, value| fields.push(name, value))?;
                }
                0x40..0x80 => {
                    self.literal(&mut block, 6)?;
                    fields.push(&self.name, &self.value);
                    self.insert();
                }
                0x20..0x40 => {
                    let size = take_number(&mut block, 5)?;
                    if size > TABLE_BYTES || fields.bytes() > 0 {
                        return Err(Malformed("a table size that was not agreed"));
                    }
                    self.size_max = size;
                    self.evict(0);
                }
                _ => {
                    self.literal(&mut block, 4)?;
                    fields.push(&self.name, &self.value);
                }
            }
            if fields.bytes() > FIELDS_BYTES_MAX {
                return Err(Malformed("fields that are too large"));
            }
        }
        Ok(())
    }

    fn with(&self, index: usize, each: impl FnOnce(&[u8], &[u8])) -> Result<(), Malformed> {
        const WRONG: Malformed = Malformed("an index without a field");
        let at = index.checked_sub(1).ok_or(WRONG)?;
        if let Some((name, value)) = STATIC.get(at) {
            each(name.as_bytes(), value.as_bytes());
            return Ok(());
        }
        let entry = self.table.get(at - STATIC.len()).ok_or(WRONG)?;
        let (name, value) = entry.bytes.split_at(entry.name_len);
        each(name, value);
        Ok(())
    }

    /// Reads a literal field into `name` and `value`.
    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<(), Malformed> {
        let index = take_number(block, prefix)?;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        if index == 0 {
            take_string(block, &mut name)?;
        } else {
            self.with(index, |n, _| name.extend_from_slice(n))?;
        }
        self.name = name;
        self.value.clear();
        take_string(block, &mut self.value)
    }

    fn insert(&mut self) {
        let bytes: Box<[u8]> = [&self.name[..], &self.value[..]].concat().into();
        let entry = Entry { bytes, name_len: self.name.len() };
        self.evict(entry.size());
        if entry.size() <= self.size_max {
            self.size += entry.size();
            self.table.push_front(entry);
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.size_max {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

fn take_number(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    const CUT: Malformed = Malformed("a number that is cut off");
    let mask = (1usize << prefix) - 1;
    let (&first, mut rest) = block.split_first().ok_or(CUT)?;
    let mut number = usize::from(first) & mask;
    if number == mask {
        for shift in (0..).step_by(7) {
            let (&byte, after) = rest.split_first().ok_or(CUT)?;
            rest = after;
            if shift > 21 {
                return Err(Malformed("a number that is too large"));
            }
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(number)
}

fn take_string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let coded = block.first().is_some_and(|b| b & 0x80 != 0);
    let len = take_number(block, 7)?;
    let (string, rest) = block.split_at_checked(len).ok_or(Malformed("a string that is cut off"))?;
    *block = rest;
    if coded {
        return huffman::decode(string, out);
    }
    out.extend_from_slice(string);
    Ok(())
}

/// Appends a number below a prefix of so many bits.
pub fn put_number(out: &mut Vec<u8>, pattern: u8, prefix: u32, number: usize) {
    let mask = (1usize << prefix) - 1;
    if number < mask {
        return out.push(pattern | number as u8);
    }
    out.push(pattern | mask as u8);
    let mut left = number - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, 0, 7, string.len());
    out.extend_from_slice(string);
}

fn put_literal(out: &mut Vec<u8>, pattern: u8, prefix: u32, name: &str, value: &str) {
    let index = STATIC.iter().position(|(n, _)| *n == name).map_or(0, |at| at + 1);
    put_number(out, pattern, prefix, index);
    if index == 0 {
        put_string(out, name.as_bytes());
    }
    put_string(out, value.as_bytes());
}

/// Appends a field that is kept by nobody.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    match static_index(name, value) {
        Some(index) => put_number(out, 0x80, 7, index),
        None => put_literal(out, 0, 4, name, value),
    }
}

/// Appends a field that the peer is to keep.
pub fn put_kept_field(out: &mut Vec<u8>, name: &str, value: &str) {
    put_literal(out, 0x40, 6, name, value);
}

fn static_index(name: &str, value: &str) -> Option<usize> {
    STATIC.iter().position(|&(n, v)| n == name && v == value).map(|at| at + 1)
}

/// The same fields in three forms.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// Stands for itself.
    pub plain: Vec<u8>,
    /// The peer keeps it from now on.
    pub first: Vec<u8>,
    /// Refers to `first`, when nothing else was kept since.
    pub again: Vec<u8>,
}

impl Blocks {
    /// All three forms.
    pub fn new(fields: &[(String, String)]) -> Blocks {
        let mut blocks = Blocks::default();
        let kept = fields.iter().filter(|(name, value)| static_index(name, value).is_none()).count();
        let mut inserted = 0;
        for (name, value) in fields {
            put_field(&mut blocks.plain, name, value);
            match static_index(name, value) {
                Some(index) => {
                    put_number(&mut blocks.first, 0x80, 7, index);
                    put_number(&mut blocks.again, 0x80, 7, index);
                }
                None => {
                    put_kept_field(&mut blocks.first, name, value);
                    // The newest has the lowest index.
                    put_number(&mut blocks.again, 0x80, 7, STATIC.len() + kept - inserted);
                    inserted += 1;
                }
            }
        }
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum();
        if bytes > TABLE_BYTES {
            // Too much for the table: what was put in first would be gone when it is referred to.
            (blocks.first, blocks.again) = (blocks.plain.clone(), blocks.plain.clone());
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = Fields::default();
        decoder.decode(block, &mut fields)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(fields.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn the_requests_of_the_standard_read() {
        // RFC 7541, C.4: three requests, Huffman coded, on one connection.
        let mut decoder = Decoder::default();
        let mut first = vec![0x82, 0x86, 0x84, 0x41, 0x8c];
        first.extend([0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]);
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(read(&mut decoder, &first).unwrap(), pairs(&get));
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(read(&mut decoder, &second).unwrap()[4], ("cache-control".into(), "no-cache".into()));
        assert_eq!((decoder.table.len(), decoder.size), (2, 110));
    }

    #[test]
    fn what_is_sent_reads_in_all_forms() {
        let fields =
            pairs(&[(":method", "GET"), (":path", "/100"), ("x-long", &"v".repeat(300)), (":scheme", "https")]);
        let blocks = Blocks::new(&fields);
        let mut decoder = Decoder::default();
        for block in [&blocks.plain, &blocks.first, &blocks.again, &blocks.plain, &blocks.again] {
            assert_eq!(read(&mut decoder, block).unwrap(), fields);
        }
    }

    #[test]
    fn old_entries_make_room_and_sizes_are_held() {
        let mut decoder = Decoder::default();
        for i in 0..200 {
            let mut block = Vec::new();
            put_kept_field(&mut block, "x-name", &format!("{i:0100}"));
            read(&mut decoder, &block).unwrap();
        }
        assert!(decoder.size <= TABLE_BYTES && decoder.table.len() == TABLE_BYTES / 138);
        assert!(read(&mut decoder, &[0x20]).is_ok());
        assert_eq!((decoder.size, decoder.table.len()), (0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for block in
            [&[0x80][..], &[0xbe], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x40, 0x05, b'a'], &[0x3f, 0xff, 0x7f]]
        {
            assert!(read(&mut Decoder::default(), block).is_err(), "{block:x?}");
        }
    }
}
