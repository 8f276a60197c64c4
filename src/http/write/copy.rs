//! The fields of a head that go on as they came.
//!
//! Owns the copying of them, and what names do. Never decides which kinds go on: that comes in as [`Kinds`].

use super::kinds::{Kinds, PROVENANCE};
use super::{Edits, write_line};
use crate::http::framing::ConnectionOptions;
use crate::http::head::{Entry, Field, Fields, field, same_name};

/// Appends the fields that go on as they came, neighbouring canonical lines in one go. Those of kinds in `ends` don't,
/// nor those that `named` takes.
#[inline]
pub(super) fn copy_fields(out: &mut Vec<u8>, fields: Fields<'_>, ends: Kinds, named: Option<Named<'_>>) {
    let mut run = 0..0;
    for entry in fields.entries {
        if ends.has(entry.kind) || named.as_ref().is_some_and(|named| named.take(fields, entry)) {
            continue;
        }
        if is_next_line(entry, run.end) {
            run.end = entry.line_end();
            continue;
        }
        if !run.is_empty() {
            out.extend_from_slice(&fields.head[run]);
        }
        run = 0..0;
        if entry.is_canonical {
            run = entry.name_start as usize..entry.line_end();
        } else {
            let Field { name, value, .. } = field(fields.head, entry);
            write_line(out, name, value);
        }
    }
    out.extend_from_slice(&fields.head[run]);
}

#[inline]
fn is_next_line(entry: &Entry, run_end: usize) -> bool {
    entry.is_canonical && entry.name_start as usize == run_end
}

/// What takes fields by their name, where their kind is not all there is to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    spared: Kinds,
    owned: [Option<&'a str>; 2],
    connection: ConnectionOptions,
    edits: Edits<'a>,
}

impl<'a> Named<'a> {
    /// `owned` are names beside the known ones that end here, `spared` the kinds that pass whatever names them. `None`,
    /// as nearly always, when nothing is named at all.
    #[inline]
    pub fn by(
        owned: [Option<&'a str>; 2],
        connection: ConnectionOptions,
        edits: &Edits<'a>,
        spared: Kinds,
    ) -> Option<Named<'a>> {
        let is_any = connection.names_fields || !edits.is_empty() || owned.iter().any(Option::is_some);
        is_any.then_some(Named { spared, owned, connection, edits: *edits })
    }

    /// Whether a configured name, an edit or a `Connection` option takes this field.
    #[inline(never)]
    fn take(&self, fields: Fields<'_>, entry: &Entry) -> bool {
        let Field { name, kind, .. } = field(fields.head, entry);
        if self.spared.has(kind) {
            return false;
        }
        self.owned.iter().flatten().any(|owned| same_name(name, owned.as_bytes()))
            || self.edits.replaces(name)
            || (self.connection.names_fields && !PROVENANCE.has(kind) && fields.connection_names(name))
    }
}
